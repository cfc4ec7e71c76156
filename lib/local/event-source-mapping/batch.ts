import { MAX_PAYLOAD_BYTES } from "../lambda/invocation.ts";
import { ENVELOPE_BYTES, type QueuedRecord } from "./event.ts";

/** Bounds of one invocation. */
export interface BatchLimits {
  readonly batchSize: number;
  readonly maximumBatchingWindowSeconds: number;
}

/** How many of the first records go into one invocation, and whether no more could. */
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
 * How long the batch in front of a queue still waits for more records, in milliseconds; 0 when it goes now: it is full,
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
