import type { PositionText } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import { parseTable } from "../../../change/table-pattern.ts";
import type { Backfill, BackfillRecord } from "../backfill/backfill-record.ts";
import { hasEnded } from "../backfill/backfill-record.ts";
import type { OpenChunk, OpenChunks } from "../backfill/open-chunks.ts";
import { AskedRows } from "./asked-rows.ts";
import type { IncompleteCreate } from "./incomplete-create.ts";
import type { RereadRecord } from "./reread-record.ts";
import { type RereadSurroundings, TableReread } from "./table-reread.ts";

/** The `run` of watermarks around rows that are read again: backfills count from 1. */
export const REREAD_RUN = 0;

/** Dependencies of `Rereads`. */
export interface RereadsOptions extends RereadSurroundings {
  readonly record: RereadRecord;
  /** Asked for tables of which too many rows are to be read. */
  readonly backfills: Pick<BackfillRecord, "request">;
  /** Returns true if rows of a table are this slot's to read. */
  readonly isOwn: (table: string) => boolean;
  readonly tablesAtOnce: number;
  /** The record knows more than before: what the stream acknowledged may be confirmed. */
  readonly onWritten: () => void;
  readonly onFailure: (error: unknown) => void;
  /** Nothing is read any more. */
  readonly onRest: () => void;
}

/** Requests wait this long for others before they are written, and so do rows that have come. */
const WRITE_MS = 200;

/**
 * The rows that are to be read again (rule 42): a change of a row's key that left a large value as it was reaches consumers as
 * a create without that value, and they may not have the row it was before. The request is in the record before the slot
 * is confirmed beyond the change; the row comes between watermarks, as a backfill's rows do.
 */
export class Rereads {
  readonly #options: RereadsOptions;
  readonly #tables = new Map<string, AskedRows>();
  readonly #runs = new Map<string, TableReread>();
  readonly #ending = new Set<Promise<void>>();
  /** Tables whose backfill this task asked for: one that is refused is not asked for again by it. */
  readonly #requested = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** A write failed: what was asked for is not on record, and never will be by this task. */
  #failure: { readonly error: unknown } | undefined;
  #closed = false;

  private constructor(options: RereadsOptions) {
    this.#options = options;
  }

  /** Takes over what is asked for. To be called under the lease and before the first change is given. @throws what the record throws. */
  static async open(options: RereadsOptions): Promise<Rereads> {
    const rereads = new Rereads(options);
    for (const stored of await options.record.list()) {
      if (!options.isOwn(stored.table)) continue;
      const asked = new AskedRows(stored.table, true);
      asked.add(stored);
      rereads.#tables.set(stored.table, asked);
    }
    // Taken: what the task before still removes comes too late.
    await rereads.#writeAll();
    rereads.#begin();
    return rereads;
  }

  /** Asks for a row. */
  ask({ table, key, position, commitLsn }: IncompleteCreate): void {
    let asked = this.#tables.get(table);
    if (!asked) {
      asked = new AskedRows(table, this.#options.isOwn(table));
      this.#tables.set(table, asked);
    }
    asked.ask(key, position, commitLsn);
    this.#writeSoon();
    const run = this.#runs.get(table);
    if (run) run.look();
    else this.#begin();
  }

  /** Number of rows that wait; of a table that is read as a whole, one. */
  get waiting(): number {
    let waiting = 0;
    for (const { count, whole } of this.#tables.values()) waiting += count + (whole === undefined ? 0 : 1);
    return waiting;
  }

  /** True if whole tables are to be read: `look` is to be called now and then. */
  get wantsTables(): boolean {
    for (const { whole } of this.#tables.values()) if (whole !== undefined) return true;
    return false;
  }

  get isIdle(): boolean {
    return this.#runs.size === 0;
  }

  /** The chunks between their watermarks. */
  get firstOpen(): OpenChunk[] {
    return [...this.#runs.values()].flatMap((run) => run.chunks.first ?? []);
  }

  /** A table's chunks between their watermarks. */
  chunks(table: string): OpenChunks | undefined {
    return this.#runs.get(table)?.chunks;
  }

  reconnected(): void {
    for (const run of this.#runs.values()) run.reconnected();
  }

  /** Up to where the server may be told that what is durable downstream up to `lsn` is. */
  durable(lsn: bigint): bigint {
    let least = lsn;
    for (const { bound } of this.#tables.values()) if (bound !== undefined && bound < least) least = bound;
    return least;
  }

  acknowledge(lsn: bigint): void {
    let news = false;
    for (const asked of this.#tables.values()) if (asked.acknowledge(lsn)) news = true;
    if (news) this.#writeSoon();
  }

  /** The record holds all that was asked for so far. @throws what the record throws. */
  async written(): Promise<void> {
    await this.#writeAll();
  }

  /** Tables with too many rows: asks for their backfills, and sees which have been read as a whole. */
  async look(latest: ReadonlyMap<string, Backfill>): Promise<void> {
    for (const asked of [...this.#tables.values()]) {
      const { table, whole } = asked;
      if (whole === undefined || !this.#options.isOwn(table)) continue;
      const backfill = latest.get(table);
      if (backfill && !hasEnded(backfill)) continue;
      const requested = this.#requested.has(table);
      if (backfill?.status === "refused" && requested) continue;
      const cancelled = backfill?.status === "cancelled" && requested;
      if (cancelled) this.#tellCancelled(table);
      if (cancelled || (backfill?.status === "done" && readsWhole(backfill, whole))) {
        asked.wholeRead(whole);
        this.#requested.delete(table);
        this.#writeSoon();
      } else await this.#request(table);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await Promise.all(this.#ending);
    await this.#writeAll().catch(() => {});
  }

  async #request(table: string): Promise<void> {
    const { backfills, log } = this.#options;
    try {
      await backfills.request(table, { sweep: false, requestedAt: Date.now() });
    } catch (error) {
      if ((error as { code?: string }).code !== "BACKFILL_ACTIVE") throw error;
      return;
    }
    this.#requested.add(table);
    log.info(`${table} is backfilled: keys of very many rows changed while their large values stayed`);
  }

  #tellCancelled(table: string): void {
    this.#options.log.warn(
      `the backfill of ${table} was cancelled: rows whose key changed may lack large values that stayed`,
      { remedy: `When you want them: tributary backfill start --table ${shellWord(table)}` },
    );
  }

  /** Begins to read what waits, so many tables side by side. */
  #begin(): void {
    const { isOwn, tablesAtOnce, signal, onRest } = this.#options;
    if (signal.aborted || this.#closed) return;
    for (const asked of this.#tables.values()) {
      if (this.#runs.size >= tablesAtOnce) return;
      const { table } = asked;
      if (this.#runs.has(table) || !isOwn(table) || asked.next(1).length === 0) continue;
      const run = new TableReread(parseTable(table), asked, this.#options);
      this.#runs.set(table, run);
      const ended = run.run().then(() => {
        this.#runs.delete(table);
        this.#ending.delete(ended);
        this.#writeSoon();
        this.#begin();
        if (this.isIdle) onRest();
      });
      this.#ending.add(ended);
    }
  }

  #writeSoon(): void {
    if (this.#timer || this.#failure || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#writeAll().catch(() => {});
    }, WRITE_MS);
  }

  /** One at a time. */
  async #writeAll(): Promise<void> {
    while (this.#writing) await this.#writing;
    if (this.#failure) throw this.#failure.error;
    this.#writing = this.#write()
      .catch((error) => {
        this.#failure = { error };
        this.#options.onFailure(error);
        throw error;
      })
      .finally(() => {
        this.#writing = undefined;
      });
    await this.#writing;
  }

  async #write(): Promise<void> {
    const { record, onWritten, isOwn } = this.#options;
    for (const asked of [...this.#tables.values()]) {
      if (!asked.isDirty) continue;
      if (!asked.known) {
        const before = await record.read(asked.table);
        if (before) asked.add(before);
        asked.known = true;
      }
      await record.write(asked.take());
      asked.written();
      // What is another slot's to read is that one's to keep.
      if ((asked.isEmpty || !isOwn(asked.table)) && !asked.isDirty && !this.#runs.has(asked.table))
        this.#tables.delete(asked.table);
      onWritten();
    }
  }
}

/** Returns true if a backfill gave, or would have given, every row as it stood behind a position. */
function readsWhole({ request, progress }: Backfill, at: PositionText): boolean {
  const { where, consumer } = request;
  return where === undefined && consumer === undefined && (progress?.startPosition ?? "") >= at;
}
