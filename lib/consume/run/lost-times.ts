import type { BatchRecord } from "./batch-record.ts";
import { type Partition, type Stop, stopAt } from "./partition.ts";

/** Until when records of the partition may have expired, each time that is not settled; or why nobody knows. */
export function lostTimes(partition: Partition, record: BatchRecord): readonly number[] | Stop {
  const { checkpoint, invocation, start } = partition;
  try {
    const until = invocation.shards.lostUntil(record.shardId);
    const { lost } = checkpoint;
    const settled = lost?.state === "settled" ? lost.until : 0;
    // Elsewhere than in an invocation of the shard, what was found there counts.
    const isNoted = start.hold !== undefined || until === "unknown";
    const times = isNoted && lost?.state === "open" ? [lost.until] : [];
    times.push(...(start.hold?.expired ?? []));
    // The last time was none: a beat of capture has said since when nothing came.
    if (until === undefined) times.pop();
    if (typeof until === "number") times.push(until);
    return times.filter((time) => time > settled);
  } catch (error) {
    return stopAt(record, error);
  }
}
