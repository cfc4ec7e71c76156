import pg from "pg";
import type { Query } from "./batch-reader.ts";

/*
 * A transaction that a snapshot shows as ended need not be on disk: an abort is not waited for, nor is a commit with `synchronous_commit = off`.
 * After a crash the server gives the id of such a transaction to another one, and whoever remembers the snapshot takes that
 * for read. A commit of our own writes everything before it: a logical message is one that needs no table and no rights.
 * https://www.postgresql.org/docs/current/wal-async-commit.html
 */
const FLUSH = `
  SELECT CASE
    WHEN pg_is_in_recovery() OR pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn() THEN NULL
    ELSE (SELECT pg_logical_emit_message(true, 'tributary.batch', '')
            FROM set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'local'), true))
  END`;

/** Not supported, not in this state, not permitted, read-only. https://www.postgresql.org/docs/current/errcodes-appendix.html */
const UNABLE = new Set(["0A000", "55000", "42501", "25006"]);

/**
 * Brings all that has ended at the server to its disk; at once where it is there. A standby has only what its primary has
 * written.
 * @returns what a server says that cannot tell: Aurora where `rds.logical_replication` is off.
 */
export async function flushLog(query: Query): Promise<string | undefined> {
  try {
    await query(FLUSH);
    return undefined;
  } catch (error) {
    if (error instanceof pg.DatabaseError && UNABLE.has(error.code ?? "")) return error.message;
    throw error;
  }
}
