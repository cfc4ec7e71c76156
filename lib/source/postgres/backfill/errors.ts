import { TributaryError } from "../../../errors.ts";

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
