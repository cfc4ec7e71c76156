import { setTimeout as delay } from "node:timers/promises";
import * as z from "zod";
import type { Log } from "../../../log.ts";
import type { TextQuery } from "../link/connection-options.ts";
import { Snapshot, xid32 } from "./visibility.ts";

/** Options of `startGate`. */
export interface StartGateOptions {
  /** On the server that rows are read from, which is the one whose log is read. */
  readonly query: TextQuery;
  /** Returns true if the stream has shown a transaction since it is being remembered. */
  readonly streamed: (xid: number) => boolean;
  readonly signal: AbortSignal;
  readonly log: Log;
}

const POLL_MS = 100;
const TELL_AFTER_MS = 3_000;
const TELL_EVERY_MS = 60_000;

const snapshotRow = z.object({ snapshot: z.string().transform(Snapshot.parse) });
const xidRow = z.object({ xid: z.string().transform(xid32) });

/**
 * Rule 25: what was streamed before we began to remember may still be hidden from a chunk. Waits until every transaction
 * that runs now has ended or was streamed; the caller remembers streamed transactions from before the call on. A
 * transaction id of our own is the upper bound: whoever gets a later one commits after we began.
 *
 * @throws the server's errors; the signal's reason.
 */
export async function startGate(options: StartGateOptions): Promise<void> {
  const { query, streamed, signal, log } = options;
  const own = xidRow.parse((await query("SELECT pg_current_xact_id()::text AS xid")).rows[0]).xid;
  const began = performance.now();
  let toldAt = began + TELL_AFTER_MS - TELL_EVERY_MS;
  let waitedFor: ReadonlySet<number> | undefined;
  for (;;) {
    const { snapshot } = snapshotRow.parse(
      (await query("SELECT pg_current_snapshot()::text AS snapshot")).rows[0],
    );
    if (!snapshot.hides(own)) {
      waitedFor = new Set(
        [...(waitedFor ?? snapshot.running)].filter((xid) => snapshot.hides(xid) && !streamed(xid)),
      );
      if (waitedFor.size === 0) return;
    }
    const now = performance.now();
    if (now - toldAt >= TELL_EVERY_MS) {
      toldAt = now;
      log.info("backfills wait for transactions that were open when the task began", {
        transactions: waitedFor && [...waitedFor].slice(0, 10),
        waitedSeconds: Math.round((now - began) / 1000),
        remedy:
          "SELECT l.transactionid, l.pid, coalesce(p.gid, a.application_name) FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid WHERE l.locktype = 'transactionid' AND l.granted",
      });
    }
    await delay(POLL_MS, undefined, { signal });
  }
}
