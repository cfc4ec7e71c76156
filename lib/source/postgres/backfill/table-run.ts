import { setTimeout as delay } from "node:timers/promises";
import type { BackfillEnd } from "../../../change/mark.ts";
import { BACKFILL_END } from "../../../change/mark.ts";
import { formatPosition } from "../../../change/position.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { TributaryError } from "../../../errors.ts";
import type { Log } from "../../../observe/log.ts";
import type { SourceMessage } from "../../change-source.ts";
import type { Relation } from "../pgoutput/messages.ts";
import { placeOfMessage } from "../pgoutput/messages.ts";
import type { Tuple } from "../pgoutput/tuple.ts";
import type { ChangeListener, RelationPlan } from "../relations.ts";
import { AcknowledgedProgress } from "./acknowledged-progress.ts";
import type { Backfill, BackfillProgress, BackfillRecord, BackfillStatus } from "./backfill-record.ts";
import type { ChangeWindow } from "./change-window.ts";
import { ChunkEvents } from "./chunk-events.ts";
import type { ChunkMark } from "./chunk-mark.ts";
import type { ChunkReader, ReadChunk } from "./chunk-reader.ts";
import { type ChunkGoal, ChunkSize } from "./chunk-size.ts";
import type { Delivery } from "./delivery.ts";
import { BackfillRefusedError } from "./errors.ts";
import { markEvent } from "./mark-event.ts";
import { type Flaw, OpenChunk } from "./open-chunk.ts";
import type { Pace } from "./pace.ts";
import { isConflict, isPassing, reasonOf } from "./passing.ts";
import { Snapshot } from "./snapshot.ts";
import type { StreamedTransactions } from "./streamed-transactions.ts";
import { pageOrder } from "./table-shape.ts";
import type { WindowMemory } from "./window-memory.ts";

/** What one table's run needs of its surroundings. */
export interface TableRunOptions {
  readonly backfill: Backfill;
  readonly table: TableName;
  readonly record: BackfillRecord;
  /** Opens what reads it, until the signal; `waits` is told for what reading waits. */
  readonly reader: (signal: AbortSignal, waits: (reason: string) => void) => ChunkReader;
  readonly streamed: StreamedTransactions;
  /** Resolves when chunks count (rule 25); `waits` is told for what. @throws the signal's reason */
  readonly gate: (signal: AbortSignal, waits: (reason: string | undefined) => void) => Promise<void>;
  readonly pace: Pace;
  /** Shared by the windows of all tables. */
  readonly memory: WindowMemory;
  /** The plan of a relation, as the log's would be. */
  readonly plan: (relation: Relation) => Promise<RelationPlan>;
  /** Lets a listener see the table's changes, or nobody. */
  readonly listen: (table: string, listener: ChangeListener | undefined) => void;
  readonly slot: string;
  /** Tells this process's marks from all others'. */
  readonly task: string;
  /** A number that no read of the task had. */
  readonly nextAttempt: () => number;
  readonly pipeline: string;
  readonly database: string;
  readonly epoch: number;
  readonly goal: ChunkGoal;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** A chunk was given. */
  readonly onGiven: () => void;
}

/** How many chunks are read ahead of the stream. */
const OPEN_CHUNKS = 2;
/** A chunk is cut above this many times its goal of bytes. */
const CUT_AT = 4;
/** A run holds at most so many times its goal of bytes. */
export const GOALS_HELD = OPEN_CHUNKS * CUT_AT;
const MAX_SHAPE_FLAWS = 8;
const RETRY_MS = 250;
const MAX_RETRY_MS = 10_000;
const SEEN_POLL_MS = 5;
const TELL_EVERY_MS = 60_000;

/**
 * The backfill of one table: reads chunk after chunk ahead of the stream, and gives each at its high mark. Whatever goes
 * wrong between the marks, the table is read again from behind the last chunk given. An error that another try does not
 * heal ends this run as refused, and nothing else.
 */
export class TableRun implements ChangeListener {
  readonly name: string;
  readonly #options: TableRunOptions;
  readonly #events = new ChunkEvents();
  readonly #size: ChunkSize;
  readonly #state: AcknowledgedProgress;
  readonly #stop = new AbortController();
  /** The task's end, or this run's. */
  readonly #until: AbortSignal;
  readonly #reader: ChunkReader;
  /** In the order of their marks. */
  #open: OpenChunk[] = [];
  #windows: readonly ChangeWindow[] = [];
  /** What was given. */
  #progress: BackfillProgress | undefined;
  /** Page key that the next chunk is read behind, and whether there is one. */
  #after: readonly string[] | null = null;
  #more = true;
  /** Columns that tell rows apart. */
  #key: readonly string[] = [];
  #shape = "";
  #plan: RelationPlan | undefined;
  /** Counts how often reading began anew. */
  #round = 0;
  #shapeFlaws = 0;
  /** Commits are streamed before they are visible: chunks wait until they are, or hardly any would do. */
  #patient = false;
  #ended: BackfillStatus | undefined;
  #wake: (() => void) | undefined;

  constructor(options: TableRunOptions) {
    const { backfill, record, epoch, log } = options;
    this.#options = options;
    this.name = formatTable(options.table);
    this.#size = new ChunkSize(options.goal);
    this.#until = AbortSignal.any([options.signal, this.#stop.signal]);
    this.#state = new AcknowledgedProgress({
      record,
      backfill,
      epoch,
      log,
      onSuperseded: () => this.abandon(),
    });
    this.#reader = options.reader(this.#until, (reason) => this.#state.waits(reason));
  }

  get backfill(): Backfill {
    return this.#options.backfill;
  }

  /** What is acknowledged. */
  get state(): { readonly status: BackfillStatus; readonly progress: BackfillProgress | undefined } {
    return this.#state.state;
  }

  /** Reads until the end, a refusal, `pause`, `cancel` or the signal. Resolves when the record says so. Never rejects. */
  async run(): Promise<void> {
    const { signal, log } = this.#options;
    const until = this.#until;
    const wake = () => this.#wake?.();
    until.addEventListener("abort", wake, { once: true });
    try {
      for (let failures = 0; !until.aborted; ) {
        try {
          await this.#begin();
          failures = await this.#read(until, failures);
        } catch (error) {
          if (until.aborted) break;
          if (!isPassing(error)) {
            this.#refuse(error);
            break;
          }
          failures++;
          // A shorter query is less in the way of a standby's recovery.
          if (isConflict(error)) this.#size.halve();
          this.#anew();
          const { code } = error as { code?: string };
          const reason = `tries again: ${reasonOf(error)}`;
          log.warn(`the backfill of ${this.name} ${reason}`, { code });
          this.#state.waits(reason);
          const waitMs = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** failures);
          await delay(waitMs * (0.5 + Math.random() / 2), undefined, { signal: until }).catch(() => {});
        }
      }
    } finally {
      until.removeEventListener("abort", wake);
      this.#discard();
      await this.#reader.end();
    }
    while (this.#ended !== undefined && !this.#state.settled && !signal.aborted) await this.#sleep(signal);
  }

  /** Ends it: paused and cancelled runs keep what was given. */
  end(status: "paused" | "cancelled"): void {
    if (this.#ended !== undefined) return;
    this.#ended = status;
    this.#stop.abort();
    this.#discard();
    this.#state.end(status);
  }

  /** Somebody else's by now: nothing of it is written any more. */
  abandon(): void {
    this.#ended ??= "cancelled";
    this.#state.stop();
    this.#stop.abort();
    this.#discard();
  }

  /** Writes what is acknowledged. */
  async flush(): Promise<void> {
    await this.#state.flush();
    this.#state.stop();
  }

  /** A new connection: what was between its marks says nothing any more. */
  reconnected(): void {
    this.#anew();
  }

  acknowledge(lsn: bigint): void {
    this.#state.acknowledge(lsn);
    this.#wake?.();
  }

  /** The low mark of a chunk came out of the slot. */
  low(mark: ChunkMark): void {
    const chunk = this.#open.find((open) => open.mark.attempt === mark.attempt);
    if (!chunk) return;
    chunk.begin(this.#key, this.#options.streamed, this.#options.memory);
    this.#watch();
    this.#wake?.();
  }

  /** The high mark came: gives what is to go there, or undefined for nothing. */
  high(mark: ChunkMark, lsn: bigint): Delivery | undefined {
    const [chunk] = this.#open;
    if (chunk?.mark.attempt !== mark.attempt) return undefined;
    const flaw = chunk.flaw(this.#options.streamed);
    if (flaw) {
      this.#again(flaw);
      return undefined;
    }
    const { read, plan } = chunk.data as NonNullable<OpenChunk["data"]>;
    this.#open.shift();
    const window = chunk.window as ChangeWindow;
    chunk.end();
    this.#watch();
    return {
      lsn,
      slices: this.#slices(read, plan, window, placeOfMessage(lsn)),
      given: () => this.#given(read, lsn),
      failed: (error) => this.#refuse(error),
    };
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

  /** The first chunk between its marks. */
  get firstOpen(): OpenChunk | undefined {
    return this.#open[0];
  }

  /** The first time, or again after an error: where to go on. */
  async #begin(): Promise<void> {
    const { backfill, table, epoch } = this.#options;
    const reader = this.#reader;
    if (this.#progress === undefined && backfill.progress === undefined) {
      this.#progress = nothing(formatPosition({ epoch, commitLsn: await reader.logEnd(), ordinal: 0 }));
      this.#state.set({ status: "running", progress: this.#progress });
    }
    const shape = await reader.shape(table, backfill.request.where, this.#mark(0));
    this.#key = shape.page.map((column) => column.name);
    const keyOrder = pageOrder(shape);
    if (this.#progress?.keyOrder !== keyOrder) {
      const before = this.#progress ?? (backfill.progress as BackfillProgress);
      const same = before.keyOrder === keyOrder;
      this.#progress = {
        startPosition: before.startPosition,
        startedAt: before.startedAt,
        lastKey: same ? before.lastKey : null,
        keyColumns: [...this.#key],
        keyOrder,
        chunk: same ? before.chunk : 0,
        rows: same ? before.rows : 0,
        bytes: same ? before.bytes : 0,
        estimatedRows: shape.estimatedRows,
        updatedAt: Date.now(),
      };
      this.#state.set({ status: "running", progress: this.#progress });
    }
    this.#anew();
  }

  async #read(until: AbortSignal, failuresBefore: number): Promise<number> {
    const { backfill, table, goal, pace, gate, streamed } = this.#options;
    const reader = this.#reader;
    const waits = (reason: string | undefined) => this.#state.waits(reason);
    let failures = failuresBefore;
    while (!until.aborted) {
      if (this.#open.length >= OPEN_CHUNKS || !this.#more) {
        await this.#sleep(until);
        continue;
      }
      await gate(until, waits);
      await pace.permit(until, waits);
      if (until.aborted) break;
      if (this.#open.length >= OPEN_CHUNKS || !this.#more) continue;
      const rows = pace.rows(this.#size.rows);
      const round = this.#round;
      const mark = this.#mark((this.#progress?.chunk ?? 0) + this.#open.length + 1);
      const chunk = new OpenChunk(mark, streamed.latest);
      this.#open.push(chunk);
      const read = await reader.read({
        table,
        mark,
        where: backfill.request.where,
        after: this.#after,
        rows,
        maxBytes: goal.bytes * CUT_AT,
        ready: async () => {
          if (this.#patient) await this.#untilVisible(chunk, round, until);
        },
      });
      streamed.saw(read.snapshot);
      pace.took(read.copied.rows);
      this.#size.took(read.copied.rows, read.copied.bytes, read.ms);
      if (round !== this.#round) continue;
      this.#checkKey(read);
      chunk.data = { read, plan: await this.#planOf(read) };
      if (round !== this.#round) continue;
      this.#after = read.lastKey ?? this.#after;
      this.#more = read.more;
      await reader.close(mark);
      this.#state.waits(undefined);
      failures = 0;
    }
    return failures;
  }

  #mark(chunk: number): ChunkMark {
    const { slot, task, backfill, nextAttempt } = this.#options;
    return { slot, task, table: this.name, run: backfill.run, chunk, attempt: nextAttempt() };
  }

  /** Another key than the windows watch, or another order of it: begun again from the beginning. */
  #checkKey({ shape }: ReadChunk): void {
    const keyOrder = pageOrder(shape);
    if (keyOrder === this.#progress?.keyOrder) return;
    const key = shape.page.map((column) => column.name);
    this.#key = key;
    if (this.#progress) {
      const none = { lastKey: null, chunk: 0, rows: 0, bytes: 0 };
      this.#progress = { ...this.#progress, keyColumns: key, keyOrder, ...none };
    }
    this.#anew();
  }

  async #planOf({ shape }: ReadChunk): Promise<RelationPlan> {
    const text = JSON.stringify(shape.relation);
    if (this.#plan === undefined || text !== this.#shape) {
      this.#plan = await this.#options.plan(shape.relation);
      this.#shape = text;
    }
    return this.#plan;
  }

  *#slices(
    read: ReadChunk,
    plan: RelationPlan,
    window: ChangeWindow,
    lsn: bigint,
  ): Generator<readonly SourceMessage[]> {
    const { backfill, epoch, pipeline, database, table } = this.#options;
    const { consumer, sweep, where } = backfill.request;
    const nowMs = Date.now();
    const { run } = backfill;
    yield* this.#events.slices(read.copied, plan, read.shape.pageIndexes, window, {
      epoch,
      lsn,
      nowMs,
      backfill: consumer === undefined ? undefined : { run, consumer },
    });
    if (read.more) return;
    const end: BackfillEnd = {
      table: this.name,
      run,
      startPosition: (this.#progress as BackfillProgress).startPosition,
      sweep: sweep && where === undefined,
      ...(consumer === undefined ? {} : { consumer }),
    };
    const ordinal = this.#events.given + 1;
    const place = { pipeline, database, epoch, lsn, ordinal, table, topic: plan.topic, nowMs };
    yield [markEvent(BACKFILL_END, end, place)];
  }

  #given(read: ReadChunk, lsn: bigint): void {
    if (this.#ended !== undefined) return;
    this.#shapeFlaws = 0;
    const before = this.#progress as BackfillProgress;
    const done = !read.more;
    this.#progress = {
      ...before,
      updatedAt: Date.now(),
      lastKey: read.lastKey ?? before.lastKey,
      chunk: before.chunk + 1,
      rows: before.rows + read.copied.rows,
      bytes: before.bytes + read.copied.bytes,
      ...(done ? { finishedAt: Date.now() } : {}),
    };
    this.#state.given(lsn, { status: done ? "done" : "running", progress: this.#progress });
    if (done) {
      this.#ended = "done";
      this.#stop.abort();
      this.#options.log.info(`the backfill of ${this.name} has read all rows`, { rows: this.#progress.rows });
    }
    this.#options.onGiven();
    this.#wake?.();
  }

  #again(flaw: Flaw): void {
    switch (flaw.kind) {
      case "visibility":
        this.#patient = true;
        break;
      case "overfull":
        this.#size.halve();
        break;
      case "shape":
        if (++this.#shapeFlaws >= MAX_SHAPE_FLAWS) {
          this.#refuse(
            new BackfillRefusedError(
              this.name,
              "the log has it in another form than the catalog, time and again",
              "Look for something that alters the table or the publication all the time; then start the backfill again.",
            ),
          );
          return;
        }
        break;
      case "window":
        break;
    }
    this.#anew();
  }

  /** What is read and not given is read again. */
  #anew(): void {
    this.#discard();
    this.#after = this.#progress?.lastKey ?? null;
    this.#more = true;
    this.#wake?.();
  }

  #discard(): void {
    this.#round++;
    for (const chunk of this.#open) chunk.end();
    this.#open = [];
    this.#watch();
  }

  #watch(): void {
    this.#windows = this.#open.flatMap((chunk) => chunk.window ?? []);
    this.#options.listen(this.name, this.#windows.length > 0 ? this : undefined);
  }

  /**
   * Waits for the low mark to come out of the slot, and until all that came before it is visible: a chunk that is read
   * then has nothing against it. Beside a synchronous standby some commit is on its way at any time, and a standby that does
   * not answer may hold it for hours.
   */
  async #untilVisible(chunk: OpenChunk, round: number, until: AbortSignal): Promise<void> {
    const { streamed, log } = this.#options;
    const reader = this.#reader;
    while (chunk.window === undefined && round === this.#round) {
      until.throwIfAborted();
      await this.#sleep(until);
    }
    let tellAt = performance.now() + RETRY_MS * 10;
    for (let waitMs = SEEN_POLL_MS; round === this.#round; waitMs = Math.min(waitMs * 2, 1_000)) {
      const { rows } = await reader.query("SELECT pg_current_snapshot()::text AS snapshot");
      const xid = chunk.hidden(streamed, Snapshot.parse((rows[0] as { snapshot: string }).snapshot));
      if (xid === undefined) return;
      if (performance.now() >= tellAt) {
        tellAt = performance.now() + TELL_EVERY_MS;
        log.info(
          `the backfill of ${this.name} waits for transaction ${xid}: it is in the log, and other sessions do not see it yet`,
          { remedy: "See whether a synchronous standby answers: SELECT * FROM pg_stat_replication" },
        );
      }
      await delay(waitMs, undefined, { signal: until });
    }
  }

  #refuse(error: unknown): void {
    if (this.#ended !== undefined) return;
    this.#ended = "refused";
    this.#stop.abort();
    this.#discard();
    const reason = reasonOf(error);
    const { log } = this.#options;
    log.error(`the backfill of ${this.name} is refused: ${reason}`, {
      code: (error as { code?: string }).code,
      ...(error instanceof TributaryError ? { remedy: error.remedy } : {}),
    });
    // Refused before it began: the reason needs a place.
    if (this.#state.state.progress === undefined) {
      const startPosition = formatPosition({ epoch: this.#options.epoch, commitLsn: 0n, ordinal: 0 });
      this.#state.set({ status: "refused", progress: nothing(startPosition) });
    }
    this.#state.end("refused", reason);
  }

  async #sleep(until: AbortSignal): Promise<void> {
    if (until.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 1_000);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}

/** The progress of a run that has read nothing. */
function nothing(startPosition: string): BackfillProgress {
  const now = Date.now();
  const none = { lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0 };
  return { startPosition, startedAt: now, updatedAt: now, ...none };
}
