import { murmur3 } from "../../change/topic.ts";
import { type BatchLimits, cutBatch, remainingWindow } from "./batch.ts";
import type { QueuedRecord } from "./event.ts";
import type { Condition } from "./wait.ts";

/** The lane of a partition key: the same for every record of that key, so that its order is kept. */
export function laneOf(partitionKey: string, lanes: number): number {
  return lanes === 1 ? 0 : murmur3(partitionKey) % lanes;
}

/**
 * One of up to ten lanes of a shard: one batch at a time, in order.
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html (ParallelizationFactor)
 */
export class Lane {
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
