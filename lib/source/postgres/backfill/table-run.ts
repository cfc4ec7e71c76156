import { setTimeout as delay } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../../backoff.ts";
import { formatPosition } from "../../../change/position.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { placeOfMessage } from "../decode/pgoutput/messages.ts";
import { BackfillRefusedError, isConflict, isPassing, needsNewStart, reasonOf } from "./backfill-errors.ts";
import type { Backfill, BackfillProgress, BackfillRecord, BackfillStatus } from "./backfill-record.ts";
import type { Watermark } from "./change-window.ts";
import { RunEvents } from "./chunk-events.ts";
import type { ChunkReader, ReadChunk } from "./chunk-reader.ts";
import type { Delivery } from "./delivery.ts";
import { type Flaw, OpenChunks, type WholeChunk } from "./open-chunks.ts";
import type { ChunkGoal } from "./read-ahead.ts";
import { ReadAhead, type ReadingSurroundings } from "./read-ahead.ts";
import { AcknowledgedProgress, behind, inOrderOf, notBegun, type RunState } from "./run-progress.ts";
import { pageOrder } from "./table-shape.ts";

/** Dependencies of `TableRun`. */
export interface TableRunOptions extends ReadingSurroundings {
  readonly backfill: Backfill;
  readonly table: TableName;
  readonly record: BackfillRecord;
  readonly slot: string;
  /** Tells this process's watermarks from all others'. */
  readonly task: string;
  /** A number that no read of the task had. */
  readonly nextAttempt: () => number;
  readonly pipeline: string;
  readonly database: string;
  readonly goal: ChunkGoal;
}

/** A chunk that is in another form than the log's so many times, with none given between: the table is not to be had. */
const MAX_SHAPE_FLAWS = 8;
const RETRY: Backoff = { baseMs: 500, capMs: 10_000 };

/**
 * The backfill of one table from its begin to its end: what is read ahead is given at its high watermarks, and counted when
 * it is acknowledged. Whatever goes wrong between the watermarks, the table is read again from behind the last chunk given. An
 * error that another try does not heal ends this run as refused, and nothing else.
 */
export class TableRun {
  readonly name: string;
  /** Those between their watermarks. */
  readonly chunks: OpenChunks;
  readonly #options: TableRunOptions;
  readonly #events: RunEvents;
  readonly #state: AcknowledgedProgress;
  readonly #stop = new AbortController();
  /** The task's end, or this run's. */
  readonly #until: AbortSignal;
  readonly #reader: ChunkReader;
  readonly #ahead: ReadAhead;
  /** As far as chunks were given. */
  #progress: BackfillProgress | undefined;
  #shapeFlaws = 0;
  #ended: BackfillStatus | undefined;

  constructor(options: TableRunOptions) {
    const { backfill, table, record, epoch, streamed, memory, log } = options;
    this.#options = options;
    this.name = formatTable(table);
    this.#events = new RunEvents(options);
    this.#until = AbortSignal.any([options.signal, this.#stop.signal]);
    this.#state = new AcknowledgedProgress({
      record,
      backfill,
      epoch,
      log,
      onSuperseded: () => this.abandon(),
    });
    const waits = (reason: string | undefined) => this.#state.waits(reason);
    this.#reader = options.reader(this.#until, waits);
    this.chunks = new OpenChunks({
      streamed,
      memory,
      listen: (listener) => options.listen(this.name, listener),
      onLow: () => this.#ahead.look(),
      deliver: (chunk, lsn) => this.#deliver(chunk, lsn),
      again: (flaw) => this.#again(flaw),
    });
    this.#ahead = new ReadAhead({
      table,
      where: backfill.request.where,
      reader: this.#reader,
      open: this.chunks,
      streamed,
      gate: options.gate,
      pace: options.pace,
      plan: options.plan,
      watermark: (chunk) => this.#watermark(chunk),
      goal: options.goal,
      waits,
      log,
    });
  }

  get backfill(): Backfill {
    return this.#options.backfill;
  }

  /** The acknowledged state. */
  get state(): RunState {
    return this.#state.state;
  }

  /** Reads until the end, a refusal, `pause`, `cancel` or the signal. Resolves when the record says so. Never rejects. */
  async run(): Promise<void> {
    const { signal, log } = this.#options;
    const until = this.#until;
    for (let failures = 0; !until.aborted; ) {
      try {
        await this.#begin();
        await this.#ahead.read(until);
      } catch (error) {
        if (until.aborted) break;
        if (!isPassing(error)) {
          this.#refuse(error);
          break;
        }
        if (needsNewStart(error)) this.#options.restart(error);
        failures++;
        // A shorter query is less in the way of a standby's recovery.
        if (isConflict(error)) this.#ahead.size.halve();
        this.#ahead.goOnBehind(this.#progress);
        const { code } = error as { code?: string };
        const reason = `tries again: ${reasonOf(error)}`;
        const remedy = error instanceof TributaryError ? { remedy: error.remedy } : {};
        log.warn(`the backfill of ${this.name} ${reason}`, { code, ...remedy });
        this.#state.waits(reason);
        await delay(backoffMs(failures, RETRY), undefined, { signal: until }).catch(() => {});
      }
    }
    this.chunks.discard();
    await this.#reader.end();
    if (this.#ended !== undefined) await this.#state.settled(signal);
  }

  /** Ends it: paused and cancelled runs keep what was given. */
  end(status: "paused" | "cancelled"): void {
    if (this.#ended !== undefined) return;
    this.#endAs(status);
    this.#state.end(status);
  }

  /** Somebody else's by now: nothing of it is written any more. */
  abandon(): void {
    this.#state.stop();
    this.#endAs(this.#ended ?? "cancelled");
  }

  /** Writes what is acknowledged. */
  async flush(): Promise<void> {
    await this.#state.flush();
    this.#state.stop();
  }

  /** A new connection: what was between its watermarks says nothing any more. */
  reconnected(): void {
    this.#ahead.goOnBehind(this.#progress);
  }

  acknowledge(lsn: bigint): void {
    this.#state.acknowledge(lsn);
  }

  #deliver(chunk: WholeChunk, lsn: bigint): Omit<Delivery, "lsn"> {
    const { startPosition } = this.#progress as BackfillProgress;
    return {
      slices: this.#events.slices(chunk, placeOfMessage(lsn), startPosition),
      given: () => this.#given(chunk.read, lsn),
      failed: (error) => this.#refuse(error),
    };
  }

  /** The first time, or again after an error: where to go on. */
  async #begin(): Promise<void> {
    const { backfill, table, epoch } = this.#options;
    let given = this.#progress ?? backfill.progress;
    if (given === undefined) {
      const logEnd = await this.#reader.logEnd();
      given = notBegun(formatPosition({ epoch, commitLsn: logEnd, ordinal: 0 }));
      this.#goOn(given);
    }
    const shape = await this.#reader.shape(table, backfill.request.where, this.#watermark(0));
    if (this.#progress?.keyOrder !== pageOrder(shape)) {
      given = inOrderOf(shape, given);
      this.#goOn(given);
    }
    this.#ahead.begin(shape, given);
  }

  #goOn(progress: BackfillProgress): void {
    this.#progress = progress;
    this.#state.set({ status: "running", progress });
  }

  #watermark(chunk: number): Watermark {
    const { slot, task, backfill, nextAttempt } = this.#options;
    return { slot, task, table: this.name, run: backfill.run, chunk, attempt: nextAttempt() };
  }

  #given(read: ReadChunk, lsn: bigint): void {
    if (this.#ended !== undefined) return;
    this.#shapeFlaws = 0;
    this.#progress = behind(read, this.#progress as BackfillProgress);
    this.#state.given(lsn, { status: read.more ? "running" : "done", progress: this.#progress });
    if (!read.more) {
      this.#endAs("done");
      this.#options.log.info(`the backfill of ${this.name} has read all rows`, { rows: this.#progress.rows });
    }
    this.#options.onGiven();
    this.#ahead.look();
  }

  #again(flaw: Flaw): void {
    switch (flaw.kind) {
      case "visibility":
        this.#ahead.patient = true;
        break;
      case "overfull":
        this.#ahead.size.halve();
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
    this.#ahead.goOnBehind(this.#progress);
  }

  #refuse(error: unknown): void {
    if (this.#ended !== undefined) return;
    this.#endAs("refused");
    const reason = reasonOf(error);
    const { log, epoch } = this.#options;
    log.error(`the backfill of ${this.name} is refused: ${reason}`, {
      code: (error as { code?: string }).code,
      ...(error instanceof TributaryError ? { remedy: error.remedy } : {}),
    });
    // Refused before it began: the reason needs a place.
    if (this.#state.state.progress === undefined) {
      const startPosition = formatPosition({ epoch, commitLsn: 0n, ordinal: 0 });
      this.#state.set({ status: "refused", progress: notBegun(startPosition) });
    }
    this.#state.end("refused", reason);
  }

  /** Nothing more is read, and nothing given of what was. */
  #endAs(status: BackfillStatus): void {
    this.#ended = status;
    this.#stop.abort();
    this.chunks.discard();
  }
}
