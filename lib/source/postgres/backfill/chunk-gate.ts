import { once } from "node:events";
import type { Log } from "../../../log.ts";
import type { ChunkReader } from "./chunk-reader.ts";
import type { OpenChunk } from "./open-chunks.ts";
import { startGate } from "./start-gate.ts";
import { StreamedTransactions } from "./visibility.ts";

/** Dependencies of `ChunkGate`. */
export interface ChunkGateOptions {
  /** True if chunks count at once: behind the low watermark's replay a standby sees all that was streamed before. */
  readonly isOpen: boolean;
  readonly reader: (signal: AbortSignal) => ChunkReader;
  readonly signal: AbortSignal;
  readonly log: Log;
}

interface Gate {
  readonly opened: Promise<void>;
  readonly stop: AbortController;
  isOpen: boolean;
}

const FORGET_EVERY_MS = 1_000;
const MAX_REMEMBERED = 1_000_000;

/** Rule 25: from the first chunk on, streamed transactions are remembered; chunks wait for those of before. */
export class ChunkGate {
  readonly streamed = new StreamedTransactions();
  readonly #options: ChunkGateOptions;
  /** Streamed transactions are remembered; the gate opens when chunks count. */
  #gate: Gate | undefined;
  #forgotAt = 0;

  constructor(options: ChunkGateOptions) {
    this.#options = options;
  }

  /** Remembers that a transaction came out of the slot. Returns false where nothing is remembered now: nothing was read for long. */
  began(xid: number): boolean {
    if (this.#gate === undefined) return true;
    this.streamed.streamed(xid);
    if (this.streamed.size <= MAX_REMEMBERED) return true;
    this.rest();
    return false;
  }

  /** Resolves when chunks count; `waits` is told for what. @throws the signal's reason, the server's errors */
  async opened(signal: AbortSignal, waits: (reason: string | undefined) => void): Promise<void> {
    if (this.#options.isOpen) return;
    this.#gate ??= this.#open();
    const { opened, isOpen } = this.#gate;
    if (isOpen) return;
    waits("transactions that were open when the capture task began have not ended");
    signal.throwIfAborted();
    await Promise.race([opened, once(signal, "abort")]);
    signal.throwIfAborted();
  }

  /** Nothing is read: transactions need not be remembered until something is. */
  rest(): void {
    this.#gate?.stop.abort();
    this.#gate = undefined;
    this.streamed.clear();
  }

  /** Forgets what a snapshot sees that is older than all `open` chunks': they see it. */
  forget(open: () => readonly OpenChunk[]): void {
    const now = performance.now();
    if (now - this.#forgotAt < FORGET_EVERY_MS) return;
    this.#forgotAt = now;
    const oldest = [...open()].sort((a, b) => a.begunAt - b.begunAt)[0];
    const floor = oldest ? oldest.floor : this.streamed.latest;
    if (floor) this.streamed.forgetSeen(floor);
  }

  #open(): Gate {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#options.signal, stop.signal]);
    // Of its own: runs come and go while it waits.
    const reader = this.#options.reader(signal);
    const opened = startGate({
      query: (sql) => reader.query(sql),
      streamed: (xid) => this.streamed.has(xid),
      signal,
      log: this.#options.log,
    }).finally(() => reader.end());
    const gate: Gate = { opened, stop, isOpen: false };
    opened.then(
      () => {
        gate.isOpen = true;
      },
      () => {
        if (this.#gate === gate) this.rest();
      },
    );
    return gate;
  }
}
