import { setTimeout as delay } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../../backoff.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { isConflict, isPassing, needsNewStart, reasonOf } from "../backfill/backfill-errors.ts";
import type { Watermark } from "../backfill/change-window.ts";
import { ChunkEvents } from "../backfill/chunk-events.ts";
import type { ChunkReader } from "../backfill/chunk-reader.ts";
import type { Delivery } from "../backfill/delivery.ts";
import type { Flaw, WholeChunk } from "../backfill/open-chunks.ts";
import { OpenChunks, untilVisible } from "../backfill/open-chunks.ts";
import type { ReadingSurroundings } from "../backfill/read-ahead.ts";
import { Nap } from "../backfill/read-ahead.ts";
import { pageOrder, type TableShape } from "../backfill/table-shape.ts";
import { placeOfMessage } from "../decode/pgoutput/messages.ts";
import type { AskedRows } from "./asked-rows.ts";
import type { AskedRow } from "./reread-record.ts";

/** Dependencies of `TableReread`. */
export interface RereadSurroundings extends ReadingSurroundings {
  /** A watermark that no read of the task had. */
  readonly watermark: (table: string) => Watermark;
}

/** Rows that are read between two watermarks, at most. */
const MAX_KEYS = 200;
const MAX_BYTES = 16 * 1024 * 1024;
const MAX_SHAPE_FLAWS = 8;
/** The session stays for so long after its last row: who changes keys often changes more of them. */
const LINGER_MS = 2_000;
const RETRY: Backoff = { baseMs: 500, capMs: 10_000 };
const SLEEP_MS = 1_000;

type Outcome =
  | { readonly kind: "given"; readonly lsn: bigint }
  | { readonly kind: "again" }
  | { readonly kind: "failed"; readonly error: unknown };

/**
 * Reads the rows of one table again that were asked for, by their keys, each time between two watermarks, as a backfill reads
 * its chunks: what changed meanwhile is left out, and what is gone is not found. A key that changed again was asked for
 * again by that change.
 */
export class TableReread {
  readonly table: string;
  /** Those between their watermarks. */
  readonly chunks: OpenChunks;
  readonly #name: TableName;
  readonly #asked: AskedRows;
  readonly #options: RereadSurroundings;
  readonly #events: ChunkEvents;
  readonly #reader: ChunkReader;
  /** Aborted when it has ended: what listened to the task's end is let go of. */
  readonly #over = new AbortController();
  readonly #until: AbortSignal;
  #shape: TableShape | undefined;
  /** So many rows are read at once: fewer after what a single one may have been the cause of. */
  #most = MAX_KEYS;
  #patient = false;
  #shapeFlaws = 0;
  /** Settles the chunk that waits for its high watermark. */
  #settle: ((outcome: Outcome) => void) | undefined;
  readonly #nap = new Nap();

  constructor(name: TableName, asked: AskedRows, options: RereadSurroundings) {
    this.table = formatTable(name);
    this.#name = name;
    this.#asked = asked;
    this.#options = options;
    const { streamed, memory, listen, reader, signal } = options;
    this.#until = AbortSignal.any([signal, this.#over.signal]);
    this.#until.addEventListener("abort", () => this.#settle?.({ kind: "again" }), { once: true });
    this.chunks = new OpenChunks({
      streamed,
      memory,
      listen: (listener) => listen(this.table, listener),
      onLow: () => this.look(),
      deliver: (chunk, lsn) => this.#deliver(chunk, lsn),
      again: (flaw) => this.#again(flaw),
    });
    this.#events = new ChunkEvents(options.maxEventBytes);
    this.#reader = reader(this.#until);
  }

  /** More was asked for. */
  look(): void {
    this.#nap.wake();
  }

  #deliver({ read, plan, window }: WholeChunk, lsn: bigint): Omit<Delivery, "lsn"> {
    const place = {
      epoch: this.#options.epoch,
      lsn: placeOfMessage(lsn),
      nowMs: Date.now(),
      backfill: undefined,
    };
    return {
      slices: this.#events.slices(read.copied, plan, read.shape.pageIndexes, window, place),
      given: () => this.#settle?.({ kind: "given", lsn }),
      failed: (error) => this.#settle?.({ kind: "failed", error }),
    };
  }

  /** A new connection: what was between its watermarks says nothing any more. */
  reconnected(): void {
    this.chunks.discard();
    this.#settle?.({ kind: "again" });
    this.look();
  }

  /** Reads until nothing is asked for any more, or the signal. Never rejects. */
  async run(): Promise<void> {
    const { log } = this.#options;
    const signal = this.#until;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const rows = await this.#next(signal);
        if (rows.length === 0) break;
        await this.#read(rows, signal);
        failures = 0;
      } catch (error) {
        this.chunks.discard();
        if (signal.aborted) break;
        if (!isPassing(error)) {
          this.#giveUpRows(error);
          continue;
        }
        if (needsNewStart(error)) this.#options.restart(error);
        if (isConflict(error)) this.#fewer();
        failures++;
        const remedy = error instanceof TributaryError ? { remedy: error.remedy } : {};
        log.warn(`reading rows of ${this.table} again is tried once more: ${reasonOf(error)}`, {
          code: (error as { code?: string }).code,
          ...remedy,
        });
        await delay(backoffMs(failures, RETRY), undefined, { signal }).catch(() => {});
      }
    }
    this.chunks.discard();
    await this.#reader.end();
    this.#over.abort();
  }

  async #next(signal: AbortSignal): Promise<AskedRow[]> {
    const until = performance.now() + LINGER_MS;
    for (;;) {
      const rows = this.#asked.next(this.#most);
      if (rows.length > 0 || signal.aborted || performance.now() >= until) return rows;
      await this.#nap.sleep(until - performance.now(), signal);
    }
  }

  async #read(rows: readonly AskedRow[], signal: AbortSignal): Promise<void> {
    const { streamed, gate, pace, plan, watermark: newWatermark } = this.#options;
    const reader = this.#reader;
    this.#shape ??= await reader.shape(this.#name, undefined, newWatermark(this.table));
    const shape = this.#shape;
    let lsn = 0n;
    for (let after: readonly string[] | null = null, more = true; more; ) {
      await gate(signal, () => {});
      await pace.permit(signal, () => {});
      signal.throwIfAborted();
      const watermark = newWatermark(this.table);
      const chunk = this.chunks.open(
        watermark,
        shape.page.map((column) => column.name),
      );
      const read = await reader.read({
        table: this.#name,
        watermark,
        where: undefined,
        keys: rows.map(({ key }) => key),
        after,
        // All there are, and none is left behind unless their bytes were too many.
        rows: rows.length + 1,
        maxBytes: MAX_BYTES,
        ready: async () => {
          if (!this.#patient) return;
          const sleep = (until: AbortSignal) => this.#nap.sleep(SLEEP_MS, until);
          await untilVisible(chunk, { ...this.#options, table: this.#name, reader, sleep }, signal);
        },
      });
      streamed.saw(read.snapshot);
      pace.took(read.copied.rows);
      if (chunk.ended) return;
      if (pageOrder(read.shape) !== pageOrder(shape)) {
        this.#shape = undefined;
        this.chunks.discard();
        return;
      }
      const planned = await plan(read.shape.relation);
      if (planned.problem) return this.#notNow(planned.problem);
      chunk.data = { read, plan: planned };
      if (chunk.ended) return;
      const settled = new Promise<Outcome>((resolve) => {
        this.#settle = resolve;
      });
      signal.throwIfAborted();
      await reader.close(watermark);
      const outcome = await settled;
      this.#settle = undefined;
      if (outcome.kind === "again") return;
      if (outcome.kind === "failed") return this.#failed(rows, outcome.error);
      this.#options.onGiven();
      ({ lsn } = outcome);
      after = read.lastKey;
      more = read.more;
    }
    this.#shapeFlaws = 0;
    this.#most = Math.min(MAX_KEYS, this.#most * 2);
    this.#asked.given(rows, lsn);
  }

  #again(flaw: Flaw): void {
    this.chunks.discard();
    if (flaw.kind === "visibility") this.#patient = true;
    if (flaw.kind === "overfull") this.#fewer();
    if (flaw.kind === "shape") {
      this.#shape = undefined;
      if (++this.#shapeFlaws >= MAX_SHAPE_FLAWS) {
        this.#shapeFlaws = 0;
        this.#giveUpRows(new Error("the log has it in another form than the catalog, time and again"));
      }
    }
    this.#settle?.({ kind: "again" });
  }

  /** A row that cannot be given does not keep the others: it is found by reading fewer at once, and left aside. */
  #failed(rows: readonly AskedRow[], error: unknown): void {
    this.chunks.discard();
    if (rows.length > 1) {
      this.#most = Math.max(1, rows.length >> 1);
      return;
    }
    this.#asked.setAside(rows);
    this.#options.log.error(`a row of ${this.table} cannot be given again: ${reasonOf(error)}`, {
      code: (error as { code?: string }).code,
      remedy: `${error instanceof TributaryError ? `${error.remedy} ` : ""}The next start of the capture task tries again.`,
    });
  }

  /** Nothing of the table can be given as it is: another key, as a rule, that somebody has to accept. */
  #notNow(problem: TributaryError): void {
    this.chunks.discard();
    this.#asked.setAside(this.#asked.next());
    this.#options.log.error(`rows of ${this.table} are not read again now: ${problem.message}`, {
      code: problem.code,
      remedy: `${problem.remedy} The next start of the capture task reads them.`,
    });
  }

  /** Not by their keys, then: the backfill of the whole table goes another way, and says why if it cannot either. */
  #giveUpRows(error: unknown): void {
    this.#shape = undefined;
    this.#options.log.warn(
      `rows of ${this.table} cannot be read again by their keys (${reasonOf(error)}): the whole table is read`,
      { code: (error as { code?: string }).code },
    );
    this.#asked.askWhole();
  }

  #fewer(): void {
    this.#most = Math.max(1, this.#most >> 1);
  }
}
