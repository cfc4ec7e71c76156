import { murmur3 } from "../../change/topic.ts";
import { MAX_PAYLOAD_BYTES } from "../lambda/invocation.ts";
import { ENVELOPE_BYTES, type QueuedRecord } from "./event.ts";
import type { Condition } from "./wait.ts";

/** The lane of a partition key: the same for every record of that key, so that its order is kept. */
export function laneOf(partitionKey: string, lanes: number): number {
  return lanes === 1 ? 0 : murmur3(partitionKey) % lanes;
}

/**
 * One of up to ten lanes of a shard: one batch at a time, in order.
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html (ParallelizationFactor)
 */
export class ShardLane {
  readonly #queue: QueuedRecord[] = [];
  readonly #changed: Condition;
  #ended = false;

  /** `changed` is notified by the one who pushes. */
  constructor(changed: Condition) {
    this.#changed = changed;
  }

  push(record: QueuedRecord): void {
    this.#queue.push(record);
  }

  /** No more records will come: what is there goes without waiting for the window. */
  end(): void {
    this.#ended = true;
  }

  /** Waits for the next batch; undefined when the lane has ended or the signal is aborted. */
  async nextBatch(limits: BatchLimits, signal: AbortSignal): Promise<QueuedRecord[] | undefined> {
    while (!signal.aborted) {
      if (this.#queue.length === 0) {
        if (this.#ended) return undefined;
        await this.#changed.wait(signal);
        continue;
      }
      const wait = remainingWindow(this.#queue, limits, this.#ended, performance.now());
      if (wait === 0) return this.#queue.splice(0, cutBatch(this.#queue, limits.batchSize).records);
      await this.#changed.wait(signal, wait);
    }
    return undefined;
  }
}

/** Bounds of one invocation. */
export interface BatchLimits {
  readonly batchSize: number;
  readonly maximumBatchingWindowSeconds: number;
}

/** Number of the first records that go into one invocation, and whether no more could. */
export interface BatchCut {
  readonly records: number;
  readonly full: boolean;
}

/**
 * Cuts the next batch from the front of a queue: at most `batchSize` records and 6 MB of payload, counted as the
 * JSON event with base64 data. A record that alone is larger makes a batch of its own; its invocation fails.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html#invocation-eventsourcemapping-batching
 */
export function cutBatch(queue: readonly Pick<QueuedRecord, "payloadBytes">[], batchSize: number): BatchCut {
  let bytes = ENVELOPE_BYTES;
  let records = 0;
  for (const { payloadBytes } of queue) {
    if (records === batchSize) break;
    bytes += payloadBytes;
    if (bytes > MAX_PAYLOAD_BYTES) return { records: Math.max(records, 1), full: true };
    records++;
  }
  return { records, full: records === batchSize };
}

/**
 * Returns the time that the batch in front of a queue still waits for more records, in milliseconds; 0 when it goes now: it is full,
 * the window since its first record is over, or the shard has no more to give.
 */
export function remainingWindow(
  queue: readonly Pick<QueuedRecord, "payloadBytes" | "queuedAt">[],
  limits: BatchLimits,
  ended: boolean,
  now: number,
): number {
  const first = queue[0];
  if (!first || ended || cutBatch(queue, limits.batchSize).full) return 0;
  return Math.max(0, first.queuedAt + limits.maximumBatchingWindowSeconds * 1000 - now);
}
