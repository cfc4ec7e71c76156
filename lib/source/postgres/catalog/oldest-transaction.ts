import * as z from "zod";
import type { TextQuery } from "../link/connection-options.ts";

/** The transaction that holds the restart LSN of every logical slot back. */
export interface OldestTransaction {
  /** Its session; undefined for a prepared transaction, which has none. */
  readonly pid: number | undefined;
  readonly xid: string;
  /** Since when it runs, as far as our role may see. */
  readonly seconds: number | undefined;
  /** `application_name` of its session, or the name of a prepared transaction. */
  readonly name: string | undefined;
}

const row = z.object({
  pid: z.int().nullable(),
  xid: z.string(),
  seconds: z.number().nullable(),
  name: z.string().nullable(),
});

/**
 * The oldest transaction that has written something, in any database. From `pg_locks`, which every role sees whole;
 * `pg_stat_activity` shows other roles' sessions to members of `pg_read_all_stats` alone.
 * https://www.postgresql.org/docs/current/view-pg-locks.html
 */
export async function readOldestTransaction(query: TextQuery): Promise<OldestTransaction | undefined> {
  const { rows } = await query(`
    SELECT l.pid, l.transactionid::text AS xid, coalesce(p.gid, a.application_name) AS name,
           extract(epoch FROM clock_timestamp() - coalesce(p.prepared, a.xact_start))::float8 AS seconds
      FROM pg_locks l
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid
     WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
     ORDER BY age(l.transactionid) DESC LIMIT 1`);
  if (rows.length === 0) return undefined;
  const { pid, xid, seconds, name } = row.parse(rows[0]);
  return { pid: pid ?? undefined, xid, seconds: seconds ?? undefined, name: name || undefined };
}
