import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { Tail, TailQuery } from "../record-stream.ts";
import { StreamTailError } from "../stream-errors.ts";
import { TailSearch } from "../tail-search.ts";
import { ShardReader } from "./shard-reader.ts";

/** The stream of a tail, its writer, and the time to read up to. */
export interface TailOptions extends TailQuery {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
}

/** The clock of capture and that of Kinesis may differ by so much, in milliseconds. */
const CLOCKS_MS = 30_000;
const TELL_EVERY_MS = 10_000;

/**
 * Reads what a writer has left in the stream behind what it is known to have stored: all shards from a time on.
 *
 * @throws StreamNotFoundError, StreamAccessError, StreamTailError where nothing can be read for `patienceMs`.
 */
export async function readTail(options: TailOptions): Promise<Tail> {
  const { streamName, sinceMs, untilMs, log } = options;
  const search = new TailSearch(options);
  let toldAt = performance.now();
  const reader = new ShardReader({
    ...options,
    gaveUp: (failure, cause) => new StreamTailError(streamName, failure, cause),
  });
  const fromMs = Math.max(0, Math.min(sinceMs, Date.now()) - CLOCKS_MS);
  await reader.read(fromMs, ({ records, askedAt, behindMs, isFull }) => {
    for (const { Data: data = new Uint8Array() } of records) search.take(data);
    const now = performance.now();
    if (now - toldAt >= TELL_EVERY_MS) {
      toldAt = now;
      log.info("reading what the task before left in the stream", { ...search.counts });
    }
    // As far as this answer goes, or further: others write on.
    return askedAt - behindMs >= untilMs && !isFull;
  });
  return search.tail;
}
