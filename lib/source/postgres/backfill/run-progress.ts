import type { Log } from "../../../log.ts";
import type { Backfill, BackfillProgress, BackfillRecord, BackfillStatus } from "./backfill-record.ts";
import type { ReadChunk } from "./chunk-reader.ts";
import { pageOrder, type TableShape } from "./table-shape.ts";

const WRITE_INTERVAL_MS = 1_000;
const AGAIN_MS = 5_000;

/** Status and progress of a run. */
export interface RunState {
  readonly status: BackfillStatus;
  readonly progress: BackfillProgress | undefined;
}

/**
 * Writes the progress of a run to the record, and only what was acknowledged downstream: the rows of a chunk
 * count when Kinesis has them. Writes are coalesced, one at a time; one that fails is made again.
 */
export class AcknowledgedProgress {
  readonly #record: BackfillRecord;
  readonly #backfill: Backfill;
  readonly #epoch: number;
  readonly #log: Log;
  readonly #onSuperseded: () => void;
  /** Given and not acknowledged, in the order of the log. */
  #given: { readonly lsn: bigint; readonly state: RunState }[] = [];
  #latest: RunState;
  #dirty = false;
  #lastWrite = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #stopped = false;
  /** The run's end, but for its last row; acknowledgements that still come move the progress only. */
  #end: { readonly status: BackfillStatus; readonly reason: string | undefined } | undefined;
  #waitsFor: string | undefined;
  #onSettled: (() => void) | undefined;

  constructor(options: {
    readonly record: BackfillRecord;
    readonly backfill: Backfill;
    readonly epoch: number;
    readonly log: Log;
    /** The run is another by now, or a later task has written. */
    readonly onSuperseded: () => void;
  }) {
    const { record, backfill, epoch, log, onSuperseded } = options;
    this.#record = record;
    this.#backfill = backfill;
    this.#epoch = epoch;
    this.#log = log;
    this.#onSuperseded = onSuperseded;
    this.#latest = { status: backfill.status, progress: backfill.progress };
  }

  /** The acknowledged state. */
  get state(): RunState {
    return { status: this.#latest.status, progress: this.#told(this.#latest) };
  }

  /** Resolves when the record holds all that was given, when nothing is written any more, or at the signal. */
  async settled(signal: AbortSignal): Promise<void> {
    if (this.#isSettled || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const over = () => resolve();
    this.#onSettled = over;
    signal.addEventListener("abort", over, { once: true });
    await promise;
    signal.removeEventListener("abort", over);
  }

  /** This holds once `lsn` is acknowledged. */
  given(lsn: bigint, state: RunState): void {
    this.#given.push({ lsn, state });
  }

  acknowledge(lsn: bigint): void {
    let latest: RunState | undefined;
    while (this.#given[0] && this.#given[0].lsn <= lsn) latest = this.#given.shift()?.state;
    if (latest) this.set(latest);
  }

  /** This holds from now on. */
  set(given: RunState): void {
    const state = this.#ended(given);
    const urgent = state.status !== this.#latest.status;
    this.#latest = state;
    this.#dirty = true;
    this.#schedule(urgent ? 0 : WRITE_INTERVAL_MS);
  }

  /** Tells what reading waits for; undefined: for nothing. Short waits are not worth a write. */
  waits(reason: string | undefined): void {
    if (reason === this.#waitsFor || this.#end) return;
    this.#waitsFor = reason;
    this.#dirty = true;
    this.#schedule(WRITE_INTERVAL_MS);
  }

  /** The run reads no more. What was given before still counts when it is acknowledged. */
  end(status: BackfillStatus, reason?: string): void {
    this.#end = { status, reason };
    this.#waitsFor = undefined;
    this.set(this.#latest);
  }

  /** Writes what holds now. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#writing;
    if (this.#dirty && !this.#stopped) await this.#write();
  }

  /** No further write. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#onSettled?.();
  }

  get #isSettled(): boolean {
    return this.#stopped || (this.#given.length === 0 && !this.#dirty && this.#writing === undefined);
  }

  #ended({ status, progress }: RunState): RunState {
    return { status: this.#end && status !== "done" ? this.#end.status : status, progress };
  }

  /** The progress with the reason of its end, or of its wait. */
  #told({ status, progress }: RunState): BackfillProgress | undefined {
    const reason = status === "done" ? undefined : this.#end ? this.#end.reason : this.#waitsFor;
    return progress && { ...progress, reason };
  }

  #schedule(intervalMs: number): void {
    if (this.#stopped || this.#writing) return;
    if (this.#timer && intervalMs > 0) return;
    clearTimeout(this.#timer);
    const waitMs = Math.max(0, this.#lastWrite + intervalMs - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#write();
    }, waitMs);
  }

  #write(): Promise<void> {
    this.#writing ??= this.#writeOnce().then((again) => {
      this.#writing = undefined;
      if (again !== undefined && this.#dirty) this.#schedule(again);
      if (this.#isSettled) this.#onSettled?.();
    });
    return this.#writing;
  }

  /** Gives when to write again, undefined for never. */
  async #writeOnce(): Promise<number | undefined> {
    this.#dirty = false;
    this.#lastWrite = performance.now();
    const { status } = this.#latest;
    const progress = this.#told(this.#latest);
    try {
      const written = await this.#record.write(this.#backfill, { status, epoch: this.#epoch, progress });
      if (written) return WRITE_INTERVAL_MS;
      this.stop();
      this.#onSuperseded();
      return undefined;
    } catch (error) {
      this.#dirty = true;
      this.#log.warn(`the progress of the backfill of ${this.#backfill.table} could not be written`, {
        code: (error as { code?: string }).code,
        error: (error as Error).name,
      });
      return AGAIN_MS;
    }
  }
}

/** The progress of a run that has read nothing. */
export function notBegun(startPosition: string): BackfillProgress {
  const now = Date.now();
  const none = { lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0 };
  return { startPosition, startedAt: now, updatedAt: now, ...none };
}

/** The progress of a run that goes on in the table's order of keys: in another one than before, from the table's beginning. */
export function inOrderOf(shape: TableShape, before: BackfillProgress): BackfillProgress {
  const keyOrder = pageOrder(shape);
  const { lastKey, chunk, rows, bytes } =
    before.keyOrder === keyOrder ? before : notBegun(before.startPosition);
  return {
    startPosition: before.startPosition,
    startedAt: before.startedAt,
    lastKey,
    keyColumns: shape.page.map((column) => column.name),
    keyOrder,
    chunk,
    rows,
    bytes,
    estimatedRows: shape.estimatedRows,
    updatedAt: Date.now(),
  };
}

/** The progress of a run that has given one chunk more. */
export function behind({ lastKey, copied, more }: ReadChunk, before: BackfillProgress): BackfillProgress {
  const now = Date.now();
  return {
    ...before,
    updatedAt: now,
    lastKey: lastKey ?? before.lastKey,
    chunk: before.chunk + 1,
    rows: before.rows + copied.rows,
    bytes: before.bytes + copied.bytes,
    ...(more ? {} : { finishedAt: now }),
  };
}
