import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";
import type { ChangeListener, RelationPlan } from "../decode/relation-plan.ts";
import type { SlotFacts } from "../slot/slot.ts";
import type { BackfillProgress } from "./backfill-record.ts";
import type { Watermark, WindowMemory } from "./change-window.ts";
import type { ChunkReader, ReadChunk } from "./chunk-reader.ts";
import { type OpenChunks, untilVisible } from "./open-chunks.ts";
import { pageOrder, type TableShape } from "./table-shape.ts";
import type { StreamedTransactions } from "./visibility.ts";

/** Shared by everything that reads chunks for one stream. */
export interface ReadingSurroundings {
  /** Opens what reads tables, until the signal; `waits` is told for what reading waits. */
  readonly reader: (signal: AbortSignal, waits?: (reason: string) => void) => ChunkReader;
  readonly streamed: StreamedTransactions;
  /** Resolves when chunks count (rule 25); `waits` is told for what. @throws the signal's reason */
  readonly gate: (signal: AbortSignal, waits: (reason: string | undefined) => void) => Promise<void>;
  readonly pace: Pace;
  /** Shared by the windows of all tables. */
  readonly memory: WindowMemory;
  /** The plan of a relation, as the log's would be. */
  readonly plan: (relation: Relation) => Promise<RelationPlan>;
  /** Lets a listener see a table's changes, or nobody. */
  readonly listen: (table: string, listener: ChangeListener | undefined) => void;
  /** Only a new start of the task opens sessions again. */
  readonly restart: (error: unknown) => void;
  readonly epoch: number;
  /** Largest event that the stream can take, in bytes; undefined: any size. */
  readonly maxEventBytes: number | undefined;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** A chunk was given. */
  readonly onGiven: () => void;
}

/** Dependencies of `ReadAhead`: what is read, by what, and what reading waits for. */
export interface ReadAheadOptions
  extends Pick<ReadingSurroundings, "streamed" | "gate" | "pace" | "plan" | "log"> {
  readonly table: TableName;
  readonly where: string | undefined;
  readonly reader: ChunkReader;
  /** Takes chunks when they are begun. */
  readonly open: OpenChunks;
  /** A watermark that no read of the task had, for the chunk of that number. */
  readonly watermark: (chunk: number) => Watermark;
  readonly goal: ChunkGoal;
  /** Told what reading waits for; undefined: for nothing. */
  readonly waits: (reason: string | undefined) => void;
}

const SLEEP_MS = 1_000;
/** Number of chunks that are read ahead of the stream. */
const OPEN_CHUNKS = 2;
/** A chunk is cut above this many times its goal of bytes. */
const CUT_AT = 4;
/** One table's chunks hold at most so many times their goal of bytes. */
export const GOALS_HELD = OPEN_CHUNKS * CUT_AT;

/** Reads a table chunk after chunk, each between its watermarks, ahead of the stream that gives them. */
export class ReadAhead {
  /** Number of rows that the next chunk asks for. */
  readonly size: ChunkSize;
  /** Commits are streamed before they are visible: chunks wait until they are, or hardly any would do. */
  patient = false;
  readonly #options: ReadAheadOptions;
  /** Columns that tell rows apart. */
  #key: readonly string[] = [];
  #keyOrder = "";
  /** Page key that the next chunk is read behind, and whether there is one. */
  #after: readonly string[] | null = null;
  #more = true;
  /** Number of the chunk begun last. */
  #chunk = 0;
  #relation = "";
  #plan: RelationPlan | undefined;
  readonly #nap = new Nap();

  constructor(options: ReadAheadOptions) {
    this.#options = options;
    this.size = new ChunkSize(options.goal);
  }

  /** Chunks are of this shape from now on, behind what was given. */
  begin(shape: TableShape, given: BackfillProgress): void {
    this.#key = shape.page.map((column) => column.name);
    this.#keyOrder = pageOrder(shape);
    this.goOnBehind(given);
  }

  /** Reads again what was read and not given. */
  goOnBehind(given: BackfillProgress | undefined): void {
    this.#options.open.discard();
    this.#after = given?.lastKey ?? null;
    this.#chunk = given?.chunk ?? 0;
    this.#more = true;
    this.look();
  }

  /** Something happened that reading may have waited for. */
  look(): void {
    this.#nap.wake();
  }

  /**
   * Reads until the signal, or until the table has another order of keys: then it is to be begun anew.
   * @throws what the reader, the plan and the gate throw.
   */
  async read(until: AbortSignal): Promise<void> {
    const {
      table,
      where,
      reader,
      open,
      streamed,
      gate,
      pace,
      watermark: newWatermark,
      goal,
      waits,
    } = this.#options;
    while (!until.aborted) {
      if (open.count >= OPEN_CHUNKS || !this.#more) {
        await this.#nap.sleep(SLEEP_MS, until);
        continue;
      }
      await gate(until, waits);
      await pace.permit(until, waits);
      if (until.aborted) break;
      if (open.count >= OPEN_CHUNKS || !this.#more) continue;
      const rows = pace.rows(this.size.rows);
      const watermark = newWatermark(++this.#chunk);
      const chunk = open.open(watermark, this.#key);
      const read = await reader
        .read({
          table,
          watermark,
          where,
          after: this.#after,
          rows,
          maxBytes: goal.bytes * CUT_AT,
          ready: async () => {
            if (this.patient)
              await untilVisible(
                chunk,
                { ...this.#options, sleep: (stop) => this.#nap.sleep(SLEEP_MS, stop) },
                until,
              );
          },
        })
        .catch(async (error) => {
          if (!isOfValue(error) || !(await this.#hasOtherOrder(watermark))) throw error;
        });
      if (read === undefined) {
        open.discard();
        return;
      }
      streamed.saw(read.snapshot);
      pace.took(read.copied.rows);
      this.size.took(read.looked, read.copied.bytes, read.ms);
      if (chunk.ended) continue;
      // Another key than the windows watch, or another order of it.
      if (pageOrder(read.shape) !== this.#keyOrder) {
        open.discard();
        return;
      }
      chunk.data = { read, plan: await this.#planOf(read) };
      if (chunk.ended) continue;
      this.#after = read.lastKey ?? this.#after;
      this.#more = read.more;
      await reader.close(watermark);
      waits(undefined);
    }
  }

  /** Returns true if the key that pages are read behind may mean nothing any more, as the label of an enum that was renamed. */
  async #hasOtherOrder(watermark: Watermark): Promise<boolean> {
    const { table, where, reader } = this.#options;
    return pageOrder(await reader.shape(table, where, watermark)) !== this.#keyOrder;
  }

  async #planOf({ shape }: ReadChunk): Promise<RelationPlan> {
    const relation = JSON.stringify(shape.relation);
    if (this.#plan === undefined || relation !== this.#relation) {
      this.#plan = await this.#options.plan(shape.relation);
      this.#relation = relation;
    }
    return this.#plan;
  }
}

/** A data exception, as SQLSTATE has them: the server does not take a value. */
function isOfValue(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code?.startsWith("22") === true;
}

/** Options of `Pace`. */
export interface PaceOptions {
  /** Rows in a second over all tables; undefined: no limit. */
  readonly rowsPerSecond: number | undefined;
  readonly log: Log;
}

/** Reading waits while the slot holds back more than this share of the WAL that the server allows it. */
const WAL_SHARE = 0.5;
const OVER_BUDGET = "the slot holds back more than half of the WAL that the server allows it";
const POLL_MS = 500;

/** Decides when the next rows may be read: a rate limit, and a look at the WAL that the stream is behind with. */
export class Pace {
  readonly #options: PaceOptions;
  #allowedAt = 0;
  #walShare = 0;
  #told = false;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** A look at the slot. A slot without a bound (max_slot_wal_keep_size = -1) has no share. */
  slot({ restartLsn, safeWalSize }: Pick<SlotFacts, "restartLsn" | "safeWalSize">, serverLsn: bigint): void {
    const held = Number(serverLsn - restartLsn);
    this.#walShare = safeWalSize === undefined ? 0 : held / Math.max(1, held + safeWalSize);
  }

  /** Returns how many of these rows to ask for at once: a second's worth at most. */
  rows(wanted: number): number {
    const { rowsPerSecond } = this.#options;
    return rowsPerSecond === undefined ? wanted : Math.max(1, Math.min(wanted, rowsPerSecond));
  }

  /** Waits until rows may be read, or the signal; `waits` is told for what. */
  async permit(signal: AbortSignal, waits: (reason: string | undefined) => void): Promise<void> {
    const { log } = this.#options;
    while (this.#walShare > WAL_SHARE && !signal.aborted) {
      waits(OVER_BUDGET);
      if (!this.#told) {
        this.#told = true;
        log.warn(`backfills wait: ${OVER_BUDGET}`, {
          remedy: "They go on by themselves when the stream has caught up.",
        });
      }
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
    if (this.#walShare <= WAL_SHARE) this.#told = false;
    const waitMs = this.#allowedAt - performance.now();
    if (waitMs > 0) await delay(waitMs, undefined, { signal }).catch(() => {});
  }

  /** Rows were read. */
  took(rows: number): void {
    const { rowsPerSecond } = this.#options;
    if (rowsPerSecond === undefined) return;
    this.#allowedAt = Math.max(this.#allowedAt, performance.now()) + (rows * 1000) / rowsPerSecond;
  }
}

/** The time and bytes that a chunk should take. */
export interface ChunkGoal {
  /** Time to read one, milliseconds. */
  readonly ms: number;
  /** Bytes of its rows; the stream stands still while they are given. */
  readonly bytes: number;
  /** Rows of the first chunk, before its time and bytes are known; no time is so long that a chunk has fewer. */
  readonly firstRows: number;
}

const MAX_ROWS = 1_000_000;
const GROWTH = 4;

/** Decides how many rows the next chunk of a table asks for: as many as took the goal's time and bytes before. */
export class ChunkSize {
  readonly #goal: ChunkGoal;
  #rows: number;

  constructor(goal: ChunkGoal) {
    this.#goal = goal;
    this.#rows = goal.firstRows;
  }

  get rows(): number {
    return this.#rows;
  }

  /** A chunk was read: so many rows and bytes in so long. */
  took(rows: number, bytes: number, ms: number): void {
    if (rows === 0) return;
    // Below some rows a chunk's time is its round trips': fewer rows would only be slower.
    const byTime = Math.max(this.#goal.firstRows, (rows * this.#goal.ms) / Math.max(ms, 1));
    const byBytes = (rows * this.#goal.bytes) / Math.max(bytes, 1);
    this.#set(Math.min(byTime, byBytes, this.#rows * GROWTH));
  }

  /** Too much happened meanwhile: a shorter window. */
  halve(): void {
    this.#set(this.#rows / 2);
  }

  #set(rows: number): void {
    this.#rows = Math.min(MAX_ROWS, Math.max(1, Math.round(rows)));
  }
}

/** A wait that is over with its time, the signal, or when something happens that it may have been for. One at a time. */
export class Nap {
  #wake: (() => void) | undefined;

  wake(): void {
    this.#wake?.();
  }

  async sleep(ms: number, until: AbortSignal): Promise<void> {
    if (until.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        until.removeEventListener("abort", wake);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(wake, ms);
      until.addEventListener("abort", wake, { once: true });
      this.#wake = wake;
    });
  }
}
