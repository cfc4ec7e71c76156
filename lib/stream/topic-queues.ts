import { POSITION_BYTES } from "../change/encoded-change.ts";
import type { PartitionQueue } from "./partition-queue.ts";

/** Makes a partition's queue; its first event follows the one at `last`. */
export type MakeQueue = (partition: number, last: Buffer | undefined) => PartitionQueue;

/**
 * The queues of one topic's partitions. One that is idle may be released: all that its next event needs to know of it is
 * the position of the last one (rule 7), which is kept in 34 bytes.
 */
export class TopicQueues {
  readonly #partitions: number;
  readonly #make: MakeQueue;
  readonly #queues: (PartitionQueue | undefined)[] = [];
  /** The queue that the topic's last event went to. */
  newest: PartitionQueue | undefined;
  /** Last positions of released queues, by partition; zeros where there is none. */
  #last: Buffer | undefined;

  constructor(partitions: number, make: MakeQueue) {
    this.#partitions = partitions;
    this.#make = make;
  }

  /** The queue of a partition. @throws PartitionKeyTooLongError */
  queue(partition: number): PartitionQueue {
    const known = this.#queues[partition];
    if (known) return known;
    const last = this.#last?.subarray(partition * POSITION_BYTES, (partition + 1) * POSITION_BYTES);
    const queue = this.#make(partition, last?.[0] ? last : undefined);
    this.#queues[partition] = queue;
    return queue;
  }

  /** Forgets a partition's idle queue, but for where it stands. */
  release(queue: PartitionQueue): void {
    this.#last ??= Buffer.alloc(this.#partitions * POSITION_BYTES);
    queue.last?.copy(this.#last, queue.partition * POSITION_BYTES);
    this.#queues[queue.partition] = undefined;
  }
}
