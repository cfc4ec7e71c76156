import { defineError } from "../../../change/tributary-error.ts";

/** A table cannot be backfilled. Its backfill ends so; the stream and all other backfills go on. */
export class BackfillRefusedError extends defineError("BACKFILL_REFUSED", "stop").from(
  (table: string, reason: string, remedy: string, cause?: unknown) => ({
    message: `the backfill of ${table} is refused: ${reason}`,
    remedy,
    cause,
    /** Why, without the table. */
    reason,
  }),
) {}

/** The server that rows are to be read from is not what it must be. */
export class BackfillServerError extends defineError("BACKFILL_SERVER", "stop") {}

/** The standby that rows are read from is away, or has not got so far: backfills wait for it, and are tried again. */
export class StandbyNotReadyError extends defineError("BACKFILL_STANDBY", "retry").from(
  (why: string, cause?: unknown) => ({
    message: `rows cannot be read from the standby: ${why}`,
    remedy:
      "Nothing to do when it comes, or catches up: the backfill goes on. Otherwise look at its replay (pg_is_wal_replay_paused(), recovery_min_apply_delay), at its connection to the primary and at TRIBUTARY_BACKFILL_DATABASE_URL, or leave that out.",
    cause,
  }),
) {}
