import { TributaryError } from "../../../change/tributary-error.ts";

/** A table cannot be backfilled. Its backfill ends so; the stream and all other backfills go on. */
export class BackfillRefusedError extends TributaryError {
  readonly code = "BACKFILL_REFUSED";
  readonly retry = "stop";
  /** Why, without the table. */
  readonly reason: string;

  constructor(table: string, reason: string, remedy: string, cause?: unknown) {
    super({ message: `the backfill of ${table} is refused: ${reason}`, remedy, cause });
    this.reason = reason;
  }
}

/** The server that rows are to be read from is not what it must be. */
export class BackfillServerError extends TributaryError {
  readonly code = "BACKFILL_SERVER";
  readonly retry = "stop";
}

/** The standby that rows are read from is away, or has not got so far: backfills wait for it, and are tried again. */
export class StandbyNotReadyError extends TributaryError {
  readonly code = "BACKFILL_STANDBY";
  readonly retry = "retry";

  constructor(why: string, cause?: unknown) {
    super({
      message: `rows cannot be read from the standby: ${why}`,
      remedy:
        "Nothing to do when it comes, or catches up: the backfill goes on. Otherwise look at its replay (pg_is_wal_replay_paused(), recovery_min_apply_delay), at its connection to the primary and at TRIBUTARY_BACKFILL_DATABASE_URL, or leave that out.",
      cause,
    });
  }
}
