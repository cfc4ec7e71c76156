import type { RelationPlan } from "../decode/relation-plan.ts";
import { ChangeWindow } from "./change-window.ts";
import type { ReadChunk } from "./chunk-reader.ts";
import type { Snapshot } from "./snapshot.ts";
import type { StreamedTransactions } from "./streamed-transactions.ts";
import type { Watermark } from "./watermark.ts";
import type { WindowMemory } from "./window-memory.ts";

/** Why a chunk that was read may not be given: it is read again. */
export type Flaw =
  | { readonly kind: "window" }
  /** More changed in the window than it keeps. */
  | { readonly kind: "overfull" }
  /** The log has the table in another form than the chunk. */
  | { readonly kind: "shape" }
  /** A transaction was streamed before the low watermark that the chunk does not see (rule 25). */
  | { readonly kind: "visibility"; readonly xid: number };

/** A chunk that may be given at its high watermark: its rows, and what changed of them meanwhile. */
export interface WholeChunk {
  readonly kind: "whole";
  readonly read: ReadChunk;
  readonly plan: RelationPlan;
  readonly window: ChangeWindow;
}

/** A chunk between the writing of its low watermark and its rows being given. */
export class OpenChunk {
  readonly watermark: Watermark;
  /** A snapshot from before it was begun: what that one sees, this chunk sees. */
  readonly floor: Snapshot | undefined;
  readonly begunAt = performance.now();
  /** Set once its rows are there, before its high watermark is written. */
  data: { readonly read: ReadChunk; readonly plan: RelationPlan } | undefined;
  /** Set when its low watermark came out of the slot. */
  window: ChangeWindow | undefined;
  readonly #key: readonly string[];
  /** Transactions streamed before its low watermark. */
  #streamedBefore = 0;
  #ended = false;

  /** `key`: the columns that tell rows apart. */
  constructor(watermark: Watermark, key: readonly string[], floor: Snapshot | undefined) {
    this.watermark = watermark;
    this.#key = key;
    this.floor = floor;
  }

  /** Whether it is given, or to be read again. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Its low watermark came. */
  begin(streamed: StreamedTransactions, memory: WindowMemory): void {
    this.window = new ChangeWindow(this.#key, memory);
    this.#streamedBefore = streamed.count;
  }

  /** It is given, or read again. */
  end(): void {
    this.#ended = true;
    this.window?.end();
  }

  /** What it is, now that its high watermark came: whole, or what speaks against giving it. */
  judged(streamed: StreamedTransactions): WholeChunk | Flaw {
    const { data, window } = this;
    if (!data || !window) return { kind: "window" };
    if (window.overfull) return { kind: "overfull" };
    if (window.keyless) return { kind: "shape" };
    for (const shape of window.shapes) if (shape !== data.plan.sourceTail) return { kind: "shape" };
    const xid = this.hidden(streamed, data.read.snapshot);
    return xid === undefined ? { kind: "whole", ...data, window } : { kind: "visibility", xid };
  }

  /** A transaction streamed before the low watermark that a snapshot does not see, or undefined. */
  hidden(streamed: StreamedTransactions, snapshot: Snapshot): number | undefined {
    return streamed.hiddenBy(snapshot, this.#streamedBefore);
  }
}
