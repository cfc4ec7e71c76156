import { setTimeout as delay } from "node:timers/promises";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { Tuple } from "../decode/pgoutput/tuple.ts";
import type { ChangeListener, RelationPlan } from "../decode/relation-plan.ts";
import type { Watermark, WindowMemory } from "./change-window.ts";
import { ChangeWindow } from "./change-window.ts";
import type { ChunkReader, ReadChunk } from "./chunk-reader.ts";
import type { Delivery } from "./delivery.ts";
import type { StreamedTransactions } from "./visibility.ts";
import { Snapshot } from "./visibility.ts";

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

  /** True if it is given, or to be read again. */
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

  /** Judges it, now that its high watermark came: it is whole, or has a flaw. */
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

/** Dependencies of `OpenChunks`. */
export interface OpenChunksOptions {
  readonly streamed: StreamedTransactions;
  /** Shared by the windows of all tables. */
  readonly memory: WindowMemory;
  /** Lets a listener see the table's changes, or nobody. */
  readonly listen: (listener: ChangeListener | undefined) => void;
  /** A low watermark came: the wait for it is over. */
  readonly onLow: () => void;
  /** Makes of a chunk, whose high watermark ends at `lsn`, what is to go there. */
  readonly deliver: (chunk: WholeChunk, lsn: bigint) => Omit<Delivery, "lsn">;
  /** A chunk may not be given: it is to be read again. */
  readonly again: (flaw: Flaw) => void;
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
    if (chunk) {
      chunk.begin(this.#options.streamed, this.#options.memory);
      this.#watch();
    }
    this.#options.onLow();
  }

  /** A high watermark came: gives what is to go there, or undefined for nothing. */
  high(watermark: Watermark, lsn: bigint): Delivery | undefined {
    const [chunk] = this.#chunks;
    if (chunk?.watermark.attempt !== watermark.attempt) return undefined;
    const judged = chunk.judged(this.#options.streamed);
    if (judged.kind !== "whole") {
      this.#options.again(judged);
      return undefined;
    }
    this.#chunks.shift();
    chunk.end();
    this.#watch();
    return { lsn, ...this.#options.deliver(judged, lsn) };
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

/** Options of `untilVisible`. */
export interface UntilVisibleOptions {
  readonly table: TableName;
  readonly reader: Pick<ChunkReader, "query">;
  readonly streamed: StreamedTransactions;
  readonly log: Log;
  /** A moment, or until something happens that may be it. */
  readonly sleep: (until: AbortSignal) => Promise<void>;
}

const SEEN_POLL_MS = 5;
const TELL_AFTER_MS = 2_500;
const TELL_EVERY_MS = 60_000;

/**
 * Waits for the low watermark to come out of the slot, and until all that came before it is visible: a chunk that is read
 * then has nothing against it. Beside a synchronous standby some commit is on its way at any time, and a standby that does
 * not answer may hold it for hours.
 * @throws the signal's reason, the server's errors.
 */
export async function untilVisible(
  chunk: OpenChunk,
  { table, reader, streamed, log, sleep }: UntilVisibleOptions,
  until: AbortSignal,
): Promise<void> {
  while (chunk.window === undefined && !chunk.ended) {
    until.throwIfAborted();
    await sleep(until);
  }
  let tellAt = performance.now() + TELL_AFTER_MS;
  for (let waitMs = SEEN_POLL_MS; !chunk.ended; waitMs = Math.min(waitMs * 2, 1_000)) {
    const { rows } = await reader.query("SELECT pg_current_snapshot()::text AS snapshot");
    const xid = chunk.hidden(streamed, Snapshot.parse((rows[0] as { snapshot: string }).snapshot));
    if (xid === undefined) return;
    if (performance.now() >= tellAt) {
      tellAt = performance.now() + TELL_EVERY_MS;
      log.info(
        `reading rows of ${formatTable(table)} waits for transaction ${xid}: it is in the log, and other sessions do not see it yet`,
        { remedy: "See whether a synchronous standby answers: SELECT * FROM pg_stat_replication" },
      );
    }
    await delay(waitMs, undefined, { signal: until });
  }
}
