import type { Tuple } from "../decode/pgoutput/tuple.ts";
import type { ChangeListener, RelationPlan } from "../decode/relation-plan.ts";
import type { ChangeWindow } from "./change-window.ts";
import { type Flaw, OpenChunk, type WholeChunk } from "./open-chunk.ts";
import type { StreamedTransactions } from "./streamed-transactions.ts";
import type { Watermark } from "./watermark.ts";
import type { WindowMemory } from "./window-memory.ts";

/** Where the open chunks of a table learn what the stream gives. */
export interface OpenChunksOptions {
  readonly streamed: StreamedTransactions;
  /** Shared by the windows of all tables. */
  readonly memory: WindowMemory;
  /** Lets a listener see the table's changes, or nobody. */
  readonly listen: (listener: ChangeListener | undefined) => void;
}

/**
 * The chunks of a table that are read and not given, in the order of their watermarks. From the first low one to the last
 * high one they see the table's changes.
 */
export class OpenChunks implements ChangeListener {
  readonly #options: OpenChunksOptions;
  #chunks: OpenChunk[] = [];
  #windows: readonly ChangeWindow[] = [];

  constructor(options: OpenChunksOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#chunks.length;
  }

  get first(): OpenChunk | undefined {
    return this.#chunks[0];
  }

  /** One more, whose low watermark is about to be written; `key`: the columns that tell rows apart. */
  open(watermark: Watermark, key: readonly string[]): OpenChunk {
    const chunk = new OpenChunk(watermark, key, this.#options.streamed.latest);
    this.#chunks.push(chunk);
    return chunk;
  }

  /** A low watermark came out of the slot. */
  low(watermark: Watermark): void {
    const chunk = this.#chunks.find((open) => open.watermark.attempt === watermark.attempt);
    if (!chunk) return;
    chunk.begin(this.#options.streamed, this.#options.memory);
    this.#watch();
  }

  /** A high watermark came: gives its chunk, which is no longer one of these, or what is wrong with it; undefined: no chunk. */
  high(watermark: Watermark): WholeChunk | Flaw | undefined {
    const [chunk] = this.#chunks;
    if (chunk?.watermark.attempt !== watermark.attempt) return undefined;
    const judged = chunk.judged(this.#options.streamed);
    if (judged.kind === "whole") {
      this.#chunks.shift();
      chunk.end();
      this.#watch();
    }
    return judged;
  }

  /** None of them is given: their watermarks mean nothing any more. */
  discard(): void {
    for (const chunk of this.#chunks) chunk.end();
    this.#chunks = [];
    this.#watch();
  }

  inserted(buffer: Buffer, plan: RelationPlan, row: Tuple): void {
    for (const window of this.#windows) window.inserted(buffer, plan, row);
  }

  updated(buffer: Buffer, plan: RelationPlan, row: Tuple, old: Tuple | undefined, whole: boolean): void {
    for (const window of this.#windows) window.updated(buffer, plan, row, old, whole);
  }

  deleted(buffer: Buffer, plan: RelationPlan, old: Tuple): void {
    for (const window of this.#windows) window.deleted(buffer, plan, old);
  }

  truncated(plan: RelationPlan): void {
    for (const window of this.#windows) window.truncated(plan);
  }

  #watch(): void {
    this.#windows = this.#chunks.flatMap((chunk) => chunk.window ?? []);
    this.#options.listen(this.#windows.length > 0 ? this : undefined);
  }
}
