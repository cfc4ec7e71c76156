import pg from "pg";
import * as z from "zod";
import { defineError, TributaryError } from "../../../change/tributary-error.ts";
import { isOfConnecting } from "../link/connection.ts";

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

/**
 * Returns true if an error of reading is none of the table's: a lost session, a lock not granted in time, a conflict with a standby's
 * recovery, a server out of room; a session that could not be opened, for whatever reason, and what a new start of the
 * task heals. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function isPassing(error: unknown): boolean {
  // A rotated secret, a role that may not connect just now: true of every table, and of none of them.
  if (isOfConnecting(error)) return true;
  if (error instanceof TributaryError) return error.retry !== "stop";
  // 25P02: what failed before it says why, and was seen first.
  if (error instanceof pg.DatabaseError) {
    // The catalog changed while it was read: another table was dropped at that moment.
    if (error.code === "XX000" && /^(could not open relation|cache lookup failed)/.test(error.message))
      return true;
    // The primary is a standby by now (25006, 55000, 0A000, XX000): the stream finds the one that took over.
    if (/recovery$|^recovery is in progress$/.test(error.message)) return true;
    return /^(08|40|53|55P03|57|58|25P02)/.test(error.code ?? "");
  }
  // Of the session, not of the server: the socket, the protocol's end.
  return (
    error instanceof Error &&
    !(error instanceof RangeError || error instanceof TypeError || error instanceof z.ZodError)
  );
}

/** Returns true if no session opens any more until the task starts anew: its secret names another user. */
export function needsNewStart(error: unknown): boolean {
  return isOfConnecting(error) && error instanceof TributaryError && error.retry === "restart";
}

/** Returns true if reading was in the way of another's work: a standby's recovery, as a rule. */
export function isConflict(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === "40001";
}

/** Classes of errors whose text may hold values of rows: what data and functions of the database's own complain of. */
const TELLS_VALUES = /^(2[0-3]|38|39|P0)/;

/** A server may say the whole of a filter again, and the reason is stored beside it. */
const MAX_REASON = 2_000;

/** Returns the text of an error of reading that everybody may see. */
export function reasonOf(error: unknown): string {
  if (error instanceof BackfillRefusedError) return shortened(error.reason);
  if (error instanceof pg.DatabaseError && TELLS_VALUES.test(error.code ?? ""))
    return `the server's error ${error.code} (its text may hold values: see the server's log)`;
  return shortened((error as Error).message);
}

function shortened(text: string): string {
  return text.length <= MAX_REASON ? text : `${text.slice(0, MAX_REASON)}…`;
}
