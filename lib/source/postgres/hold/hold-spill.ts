import { setTimeout as sleep } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../../backoff.ts";
import { type ClaimStore, claimOf, pathSegment } from "../../../change/claim-store.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { formatSegment, type HeldChange } from "./held-change.ts";
import type { HeldTopic } from "./held-topic.ts";
import type { HoldRecord, HoldSegment } from "./hold-record.ts";

/** The place where changes of held topics are stored. */
export interface SpillPlace {
  readonly store: ClaimStore;
  readonly pipeline: string;
  /** The capture lease: two tasks never write the same object. */
  readonly generation: number;
}

const RETRY: Backoff = { baseMs: 100, capMs: 5_000 };

/**
 * Stores changes of a topic as one object; durable when it resolves. What may pass is tried again until `signal` aborts.
 * @throws ClaimStoreRefusedError, and what the store threw last when the signal aborted.
 */
export async function storeSegment(
  { store, pipeline, generation }: SpillPlace,
  topic: string,
  index: number,
  changes: readonly [HeldChange, ...HeldChange[]],
  signal: AbortSignal,
): Promise<HoldSegment> {
  const bytes = formatSegment(changes);
  const path = [pipeline, "held", topic, `${index}-${generation}`].map(pathSegment).join("/");
  const claim = claimOf(store, path, bytes);
  const { position } = changes.at(-1) as HeldChange;
  for (let failures = 1; ; failures++) {
    try {
      await store.put(claim, bytes, signal);
      return { claim, changes: changes.length, last: position };
    } catch (error) {
      if (signal.aborted || !(error instanceof TributaryError) || error.retry !== "retry") throw error;
      await sleep(backoffMs(failures, RETRY), undefined, { signal });
    }
  }
}

/** Dependencies of `HoldSpill`. */
export interface HoldSpillOptions extends SpillPlace {
  readonly record: HoldRecord;
  /** Resolves when rows are on record that decoding asked for again (rule 42). */
  readonly asked: () => Promise<void>;
  /** More is stored than before: what the stream acknowledged may be confirmed. */
  readonly onStored: () => void;
  readonly onFailure: (error: unknown) => void;
}

/** A segment is stored once it is as large, or after a moment. */
const SEGMENT_BYTES = 1024 * 1024;
const SEGMENT_MS = 500;
/** So much waits to be stored at most. */
const WAITING_BYTES = 8 * 1024 * 1024;

/** Stores what held topics have taken in, segment by segment, one at a time. */
export class HoldSpill {
  readonly #options: HoldSpillOptions;
  readonly #topics: ReadonlyMap<string, HeldTopic>;
  readonly #signal: AbortSignal;
  #storing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failed = false;

  /** `signal`: from then on nothing is tried again. */
  constructor(options: HoldSpillOptions, topics: ReadonlyMap<string, HeldTopic>, signal: AbortSignal) {
    this.#options = options;
    this.#topics = topics;
    this.#signal = signal;
  }

  /** True if store or record gave up: nothing is stored any more. */
  get failed(): boolean {
    return this.#failed;
  }

  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.onFailure(error);
  }

  /** A topic took a change in: it is stored in a moment. */
  took(topic: HeldTopic): void {
    this.#soon(topic.pendingBytes >= SEGMENT_BYTES ? 0 : SEGMENT_MS);
  }

  /** Nothing is stored by itself any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  /** Waits while too much is to be stored, until `signal`: a store that is down must not keep the task from ending. */
  async room(signal: AbortSignal): Promise<void> {
    while (!this.#failed && !signal.aborted && this.#waitingBytes() > WAITING_BYTES && this.#storing)
      await settledOrAborted(this.#storing, signal);
  }

  #soon(delayMs: number): void {
    if (this.#storing || this.#failed) return;
    if (delayMs > 0 && this.#timer) return;
    clearTimeout(this.#timer);
    if (delayMs > 0) this.#timer = setTimeout(() => this.#soon(0), delayMs);
    else {
      this.#timer = undefined;
      this.all().catch((error) => this.fail(error));
    }
  }

  /** Stores all that waits. @throws what store and record throw. */
  async all(): Promise<void> {
    while (this.#storing) await this.#storing;
    this.#storing = (async () => {
      for (const topic of this.#topics.values()) await this.#store(topic);
    })().finally(() => {
      this.#storing = undefined;
    });
    await this.#storing;
    if (this.#waitingBytes() > 0) this.#soon(SEGMENT_MS);
  }

  async #store(topic: HeldTopic): Promise<void> {
    const changes = topic.take();
    if (!changes) return;
    const { record, generation: by } = this.#options;
    const { hold } = topic;
    const segment = await storeSegment(this.#options, hold.topic, hold.next, changes, this.#signal);
    await record.writeSegment(hold.topic, hold.next, segment);
    // What went into the stream meanwhile is told with it.
    if (topic.unwritten) await this.#options.asked();
    const next = { ...topic.with(segment), by };
    await record.write(next);
    topic.stored(next);
    this.#options.onStored();
  }

  #waitingBytes(): number {
    let bytes = 0;
    for (const { pendingBytes } of this.#topics.values()) bytes += pendingBytes;
    return bytes;
  }
}

/** Resolves when the work is done or the signal aborts. @throws what the work throws before. */
export async function settledOrAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = () => resolve();
  signal.addEventListener("abort", stop, { once: true });
  try {
    await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
