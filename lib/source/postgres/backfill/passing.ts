import pg from "pg";
import { z } from "zod";
import { TributaryError } from "../../../errors.ts";

/**
 * Whether an error of reading passes by itself: a lost session, a lock not granted in time, a conflict with a standby's
 * recovery, a server out of room. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function isPassing(error: unknown): boolean {
  if (error instanceof TributaryError) return error.retry === "retry";
  // 25P02: what failed before it says why, and was seen first.
  if (error instanceof pg.DatabaseError) {
    // The catalog changed while it was read: another table was dropped at that moment.
    if (error.code === "XX000") return /^(could not open relation|cache lookup failed)/.test(error.message);
    return /^(08|40|53|55P03|57|58|25P02)/.test(error.code ?? "");
  }
  // Of the session, not of the server: the socket, the protocol's end.
  return (
    error instanceof Error &&
    !(error instanceof RangeError || error instanceof TypeError || error instanceof z.ZodError)
  );
}
