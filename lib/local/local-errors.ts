import { TributaryError } from "../change/tributary-error.ts";

/** A port that was asked for is held by another process. */
export class PortTakenError extends TributaryError {
  readonly code = "PORT_TAKEN";
  readonly retry = "stop";
  readonly port: number;

  constructor(port: number, cause?: unknown) {
    super({
      message: `Port ${port} on 127.0.0.1 is taken by another process`,
      remedy: `End the process that listens on ${port} (ss -ltnp "sport = :${port}"), or choose another port, or leave it out for a free one.`,
      cause,
    });
    this.port = port;
  }
}

/** The PostgreSQL server or its initdb did not come up; the message holds the end of what it printed. */
export class PostgresStartError extends TributaryError {
  readonly code = "POSTGRES_START";
  readonly retry = "stop";
}

/** No PostgreSQL binaries that could run here were found. */
export class PostgresBinariesError extends TributaryError {
  readonly code = "POSTGRES_BINARIES";
  readonly retry = "stop";
}

/** Another living process runs a server on this data directory. */
export class DataDirectoryInUseError extends TributaryError {
  readonly code = "DATA_DIRECTORY_IN_USE";
  readonly retry = "stop";

  constructor(directory: string, owner: number) {
    super({
      message: `The data directory ${directory} is in use by process ${owner}`,
      remedy: `End process ${owner} first, or choose another data directory.`,
    });
  }
}

/** Something of ours made calls that AWS refuses, and that only an emulator would take. */
export class CallsRefusedError extends TributaryError {
  readonly code = "CALLS_REFUSED";
  readonly retry = "stop";

  constructor(calls: readonly string[]) {
    super({
      message: `AWS refuses calls that were made: ${calls.join("; ")}`,
      remedy: "Keep to the limit that the message names.",
    });
  }
}

/** A child process of the local host (an emulator) did not come up. */
export class ChildStartError extends TributaryError {
  readonly code = "CHILD_START";
  readonly retry = "stop";
}
