import type { ChangeStream, SourceChange, SourceMessage } from "../../change/change-stream.ts";
import type { Batch } from "./relay-database.ts";

/**
 * One lane while a relay owns it: the stream of its batches. One batch is open at a time; its acknowledgement is the
 * batch's number.
 */
export class Lane implements ChangeStream {
  readonly lane: number;
  /** Grows with every change of hands of any lane; all its records carry it (rule 8). */
  readonly generation: number;
  readonly changes: AsyncIterable<readonly SourceMessage[]>;
  readonly #loss = new AbortController();
  readonly #onAcknowledged: () => void;
  readonly #waiting: (readonly SourceMessage[])[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #batch: Batch | undefined;
  #acknowledged = 0n;

  constructor(lane: number, generation: number, onAcknowledged: () => void) {
    this.lane = lane;
    this.generation = generation;
    this.#onAcknowledged = onAcknowledged;
    this.changes = this.#read();
  }

  /** Aborts when another relay has taken the lane. */
  get lost(): AbortSignal {
    return this.#loss.signal;
  }

  /** The open batch. */
  get batch(): Batch | undefined {
    return this.#batch;
  }

  /** The open batch once all of it is durable downstream. */
  get acknowledged(): Batch | undefined {
    return this.#batch && this.#acknowledged >= this.#batch.number ? this.#batch : undefined;
  }

  /** Gives a batch; `committedMs` is when the newest of it was written. */
  open(batch: Batch, changes: readonly SourceChange[], committedMs: number): void {
    this.#batch = batch;
    this.#waiting.push([...changes, { kind: "commit", endPlace: batch.number, commitTimeMs: committedMs }]);
    this.#wake?.();
  }

  /** The open batch is done with: there may be another. */
  closed(): void {
    this.#batch = undefined;
  }

  acknowledge(lsn: bigint): void {
    this.#acknowledged = lsn;
    this.#onAcknowledged();
  }

  /** Another relay owns it: nothing more of it may be written. */
  lose(reason: Error): void {
    this.#loss.abort(reason);
    this.#end();
  }

  async close(): Promise<void> {
    this.#end();
  }

  #end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *#read(): AsyncGenerator<readonly SourceMessage[]> {
    for (;;) {
      const next = this.#waiting.shift();
      if (next) yield next;
      else if (this.#ended) return;
      else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
        this.#wake = undefined;
      }
    }
  }
}
