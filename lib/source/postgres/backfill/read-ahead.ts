import pg from "pg";
import type { TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";
import type { ChangeListener, RelationPlan } from "../decode/relation-plan.ts";
import type { BackfillProgress } from "./backfill-record.ts";
import type { WindowMemory } from "./change-window.ts";
import type { ChunkReader, ReadChunk } from "./chunk-reader.ts";
import type { OpenChunks } from "./open-chunks.ts";
import { untilVisible } from "./open-chunks.ts";
import { type ChunkGoal, ChunkSize, Nap, type Pace } from "./pace.ts";
import { pageOrder, type TableShape } from "./table-shape.ts";
import type { StreamedTransactions } from "./visibility.ts";
import type { Watermark } from "./watermark.ts";

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
/** How many chunks are read ahead of the stream. */
const OPEN_CHUNKS = 2;
/** A chunk is cut above this many times its goal of bytes. */
const CUT_AT = 4;
/** One table's chunks hold at most so many times their goal of bytes. */
export const GOALS_HELD = OPEN_CHUNKS * CUT_AT;

/** Reads a table chunk after chunk, each between its watermarks, ahead of the stream that gives them. */
export class ReadAhead {
  /** How many rows the next chunk asks for. */
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

  /** Whether the key that pages are read behind may mean nothing any more, as the label of an enum that was renamed. */
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
