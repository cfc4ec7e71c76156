import { lagOf } from "../capture/consumer-lag.ts";
import type { ConsumerDefinition } from "../definition/definition.ts";
import { readCaptureReports } from "../state/capture-report.ts";
import { persistentTable, type StatePlace } from "../state/persistent-table.ts";
import { shardKey } from "../state/state-key.ts";
import { consumerStatus } from "./consumer-status.ts";
import { newestOf } from "./status-parts.ts";

/**
 * Returns when the oldest change was written that a consumer has not applied, as far as capture's reports tell, and behind the hour that
 * they reach back, how far it had finished its shards; `pausedAt` where nothing older is known. Milliseconds since 1970 UTC.
 * @throws StateTableError, StateTableUnavailableError, FenceUnavailableError
 */
export async function oldestUnapplied(
  place: StatePlace,
  consumer: ConsumerDefinition,
  pausedAt: number,
  retentionHours: number,
): Promise<number> {
  const { signal } = place;
  const wall = Date.now();
  const newest = newestOf(await readCaptureReports(place));
  const partitions = await consumerStatus({ ...place, consumer: consumer.name }, signal);
  const lag = await lagOf(consumer, partitions, newest, { place, signal, wall });
  if (lag.state !== "behind") return pausedAt;
  const known = Math.min(pausedAt, wall - lag.forMs);
  return lag.atLeast
    ? Math.min(known, ...(await shardsFinishedAt(place, consumer, wall - retentionHours * 3_600_000)))
    : known;
}

/** Returns when the records arrived up to which a consumer has finished its shards. Shards of before `after` are closed for long. */
async function shardsFinishedAt(
  place: StatePlace,
  { name }: ConsumerDefinition,
  after: number,
): Promise<readonly number[]> {
  const arrived: number[] = [];
  for await (const item of persistentTable(place).query(
    shardKey({ pipeline: place.pipeline, consumer: name }, ""),
  ))
    arrived.push(Number(item.arrived?.N ?? Number.NaN));
  return arrived.filter((at) => at > after);
}
