import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { PROBE, type Probe } from "../change/control-event.ts";
import { parseLsn } from "../change/lsn.ts";
import { commitPrefix, type PositionText } from "../change/position.ts";

const POLL_MS = 250;

/** Settings of `passProbe`. */
export interface PassageOptions {
  /** An ordinary connection to the primary. */
  readonly client: pg.Client;
  readonly slot: string;
  /** As `formatTable` writes it. */
  readonly table: string;
  readonly epoch: number;
  /** The consumer's checkpoints in the table's topic, one a partition. */
  readonly checkpoints: () => Promise<readonly (PositionText | undefined)[]>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/**
 * Writes a probe into the log and waits until the consumer has passed it in every partition of the table's topic. All
 * that was visible in the database before has then taken effect, or lies parked: its commits stand before the probe.
 * Gives the partitions that are still behind when the time is over; empty: all have passed.
 */
export async function passProbe(options: PassageOptions): Promise<readonly number[]> {
  const { client, slot, table, epoch, checkpoints, timeoutMs, signal } = options;
  const { rows } = await client.query<{ lsn: string; version: string }>(
    "SELECT pg_current_wal_insert_lsn()::text AS lsn, current_setting('server_version_num') AS version",
  );
  const { lsn, version } = rows[0] as { lsn: string; version: string };
  await client.query(probeSql({ slot, table, id: randomUUID() }, Number(version)));
  // The probe stands at this LSN or behind it, all earlier commits before.
  const wanted = commitPrefix(epoch, parseLsn(lsn));
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const behind = (await checkpoints()).flatMap((checkpoint, partition) =>
      checkpoint === undefined || checkpoint < wanted ? [partition] : [],
    );
    if (behind.length === 0 || performance.now() >= deadline) return behind;
    await sleep(POLL_MS, undefined, { signal });
  }
}

/**
 * The statement that writes a probe and flushes the log, since the stream shows only what is flushed: from 17 the function
 * does it, before, a commit with a transaction id does.
 * https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
function probeSql(probe: Probe, version: number): string {
  const content = pg.escapeLiteral(JSON.stringify(probe));
  if (version >= 170_000) return `SELECT pg_logical_emit_message(false, '${PROBE}', ${content}, true)`;
  return `BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id(); SELECT pg_logical_emit_message(false, '${PROBE}', ${content}); COMMIT`;
}
