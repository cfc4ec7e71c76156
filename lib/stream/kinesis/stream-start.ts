import type { FoundStart, StartQuery, StreamExtent } from "../record-stream.ts";
import { CLOCKS_MS, StartSearch } from "../start-search.ts";
import { StreamReadError } from "../stream-errors.ts";
import { ShardReader, type ShardReaderOptions } from "./shard-reader.ts";

type StreamPlace = Pick<ShardReaderOptions, "kinesis" | "streamName" | "patienceMs" | "signal">;

const TELL_EVERY_MS = 10_000;
/** Records so long before the time are read first: in a pipeline that is not idle one of them is enough. */
const LOOK_BACK_MS = 15 * 60_000;
/** A change may arrive so much later than one that was committed after it: partitions wait for each other in nothing. */
const DISORDER_MS = 15 * 60_000;
/** A shard is read no further when a start was found, and it gave so much. */
const ENOUGH_BYTES = 64 * 1024 * 1024;
const HOUR_MS = 3_600_000;

/** Tells what a Kinesis stream still has. @throws StreamNotFoundError, StreamAccessError, StreamReadError */
export async function streamExtent(place: StreamPlace): Promise<StreamExtent> {
  const reader = readerOf(place);
  const { RetentionPeriodHours = 24, StreamCreationTimestamp } = (await reader.describe()) ?? {};
  return {
    retentionMs: RetentionPeriodHours * HOUR_MS,
    createdMs: StreamCreationTimestamp?.getTime() ?? 0,
    shards: await reader.shards(),
  };
}

/**
 * Finds where a consumer begins that is to get what was committed since a time: reads the minutes before it, and where nothing
 * was committed in them, all from `keptFromMs` up to the first changes behind it.
 *
 * @throws StreamNotFoundError, StreamAccessError, StreamReadError where nothing can be read for `patienceMs`.
 */
export async function findStart(options: StartQuery & StreamPlace): Promise<FoundStart | undefined> {
  const { keptFromMs, timeMs } = options;
  const near = new StartSearch(options);
  const nearMs = Math.max(keptFromMs - CLOCKS_MS, timeMs - LOOK_BACK_MS);
  await search(options, near, nearMs, () => true);
  if (near.hasFound) return near.start;
  const whole = new StartSearch(options);
  const firstBehind = new Map<string, number>();
  await search(options, whole, keptFromMs - CLOCKS_MS, (shardId, arrivedMs, isBehind) => {
    if (whole.hasFound) return true;
    const first = firstBehind.get(shardId);
    if (first !== undefined) return arrivedMs > first + DISORDER_MS;
    if (isBehind) firstBehind.set(shardId, arrivedMs);
    return false;
  });
  return whole.start;
}

/** Reads all shards; `isEnough` is asked once a shard has come to the time: with when a record arrived, and whether it has a change from behind the time. */
async function search(
  options: StartQuery & StreamPlace,
  found: StartSearch,
  fromMs: number,
  isEnough: (shardId: string, arrivedMs: number, isBehind: boolean) => boolean,
): Promise<void> {
  const { timeMs, log } = options;
  const bytesOf = new Map<string, number>();
  let records = 0;
  let toldAt = performance.now();
  await readerOf(options).read(Math.max(0, fromMs), (answer) => {
    const { shardId } = answer;
    let bytes = bytesOf.get(shardId) ?? 0;
    let isRead = answer.behindMs === 0 && !answer.isFull;
    for (const { Data: data = new Uint8Array(), ApproximateArrivalTimestamp: arrived } of answer.records) {
      bytes += data.length;
      records++;
      const arrivedMs = arrived?.getTime() ?? Date.now();
      const isBehind = found.take(data, arrivedMs);
      if (arrivedMs >= timeMs && isEnough(shardId, arrivedMs, isBehind)) isRead = true;
    }
    bytesOf.set(shardId, bytes);
    const now = performance.now();
    if (now - toldAt >= TELL_EVERY_MS) {
      toldAt = now;
      log.info("looking in the stream for the start of a new consumer", { records });
    }
    return isRead || (found.hasFound && bytes > ENOUGH_BYTES);
  });
}

function readerOf({ kinesis, streamName, patienceMs, signal }: StreamPlace): ShardReader {
  return new ShardReader({
    ...{ kinesis, streamName, patienceMs, signal },
    gaveUp: (failure, cause) => new StreamReadError(streamName, failure, cause),
  });
}
