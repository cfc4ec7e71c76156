import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";

/** The table of the ticks. */
export const TICKS = "CREATE TABLE ticks (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text)";
/** Connections that commit in turn: one alone does not come to a thousand commits a second. */
const CONNECTIONS = 8;
const NOTE =
  "Please leave the parcel with the neighbour on the second floor; the bell does not work, knock twice.";

/** Commits one row after the other at a steady rate. Gives when the client knew of each commit, by the row's id. */
export async function commitSteadily(
  databaseUrl: string,
  { commitsASecond, seconds }: { readonly commitsASecond: number; readonly seconds: number },
): Promise<ReadonlyMap<string, number>> {
  const clients = Array.from({ length: CONNECTIONS }, () => new pg.Client({ connectionString: databaseUrl }));
  const committedAt = new Map<string, number>();
  try {
    await Promise.all(clients.map((client) => client.connect()));
    const begun = performance.now();
    const commit = async (client: pg.Client, i: number) => {
      await delay(Math.max(0, begun + (i * 1000) / commitsASecond - performance.now()));
      const id = String(commitsASecond * 1_000_000 + i);
      await client.query("INSERT INTO ticks VALUES ($1, now(), $2)", [id, NOTE]);
      committedAt.set(id, performance.timeOrigin + performance.now());
    };
    await Promise.all(
      clients.map(async (client, first) => {
        for (let i = first; i < commitsASecond * seconds; i += CONNECTIONS) await commit(client, i);
      }),
    );
    return committedAt;
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
}

/** Percentiles of latencies, in milliseconds. */
export interface Latency {
  readonly commits: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Percentiles of what was measured. Nothing arrives before its commit: what the client learned later counts as at once. */
export function percentiles(latencies: readonly number[]): Latency {
  const sorted = latencies.map((ms) => Math.max(0, ms)).sort((a, b) => a - b);
  const at = (share: number) =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(2));
  return { commits: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}
