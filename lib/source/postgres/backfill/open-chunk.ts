import type { RelationPlan } from "../relations.ts";
import { ChangeWindow } from "./change-window.ts";
import type { ChunkMark } from "./chunk-mark.ts";
import type { ReadChunk } from "./chunk-reader.ts";
import type { Snapshot } from "./snapshot.ts";
import type { StreamedTransactions } from "./streamed-transactions.ts";
import type { WindowMemory } from "./window-memory.ts";

/** Why a chunk that was read may not be given: it is read again. */
export type Flaw =
  | { readonly kind: "window" }
  /** More changed in the window than it keeps. */
  | { readonly kind: "overfull" }
  /** The log has the table in another form than the chunk. */
  | { readonly kind: "shape" }
  /** A transaction was streamed before the low mark that the chunk does not see (rule 25). */
  | { readonly kind: "visibility"; readonly xid: number };

/** A chunk between the writing of its low mark and its rows being given. */
export class OpenChunk {
  readonly mark: ChunkMark;
  /** A snapshot from before it was begun: what that one sees, this chunk sees. */
  readonly floor: Snapshot | undefined;
  readonly begunAt = performance.now();
  /** Set once its rows are there, before its high mark is written. */
  data: { readonly read: ReadChunk; readonly plan: RelationPlan } | undefined;
  /** Set when its low mark came out of the slot. */
  window: ChangeWindow | undefined;
  /** Transactions streamed before its low mark. */
  #streamedBefore = 0;

  constructor(mark: ChunkMark, floor: Snapshot | undefined) {
    this.mark = mark;
    this.floor = floor;
  }

  /** Its low mark came; `key`: the columns that tell rows apart. */
  begin(key: readonly string[], streamed: StreamedTransactions, memory: WindowMemory): void {
    this.window = new ChangeWindow(key, memory);
    this.#streamedBefore = streamed.count;
  }

  /** It is given, or read again. */
  end(): void {
    this.window?.end();
  }

  /** What speaks against giving it, now that its high mark came. */
  flaw(streamed: StreamedTransactions): Flaw | undefined {
    const { data, window } = this;
    if (!data || !window) return { kind: "window" };
    if (window.overfull) return { kind: "overfull" };
    if (window.keyless) return { kind: "shape" };
    for (const shape of window.shapes) if (shape !== data.plan.sourceTail) return { kind: "shape" };
    const xid = this.hidden(streamed, data.read.snapshot);
    return xid === undefined ? undefined : { kind: "visibility", xid };
  }

  /** A transaction streamed before the low mark that a snapshot does not see, or undefined. */
  hidden(streamed: StreamedTransactions, snapshot: Snapshot): number | undefined {
    return streamed.hiddenBy(snapshot, this.#streamedBefore);
  }
}
