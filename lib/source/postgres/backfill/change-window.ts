import pg from "pg";
import * as z from "zod";
import { joinKeyText } from "../decode/key-text.ts";
import { NULL, type Tuple, UNCHANGED } from "../decode/pgoutput/tuple.ts";
import type { PlannedColumn, RelationPlan } from "../decode/relation-plan.ts";

/** The part of a relation's plan that a window needs. */
export type WindowPlan = Pick<RelationPlan, "columns" | "sourceTail">;

/**
 * A row that changed in the window and of which a stored (TOAST) value did not travel, nor with an earlier change in the
 * window: dropping the chunk's row would lose the value for who never had it.
 */
export interface IncompleteRow {
  /** The latest change: its message, and where the new row's values stand in it. */
  readonly message: Buffer;
  readonly start: Int32Array;
  readonly end: Int32Array;
  /** Indexes of the columns that the window has not shown: their value is what the chunk read. */
  readonly missing: ReadonlySet<number>;
}

/** Of a key beside its text. */
const ENTRY_BYTES = 96;

/**
 * The changes of a table between the low and the high watermark of a chunk, as the stream gave them: rows of the chunk
 * that changed meanwhile are dropped, old and new keys alike (rule 24).
 */
export class ChangeWindow implements MemoryHolder {
  readonly #keyColumns: readonly string[];
  readonly #memory: WindowMemory;
  /** Key text to what is missing of the row; null: nothing, the stream has it all. */
  readonly #rows = new Map<string, IncompleteRow | null>();
  readonly #shapes = new Set<string>();
  #plan: WindowPlan | undefined;
  #key: readonly number[] = [];
  #truncated = false;
  #overfull = false;
  #keyless = false;

  /** `keyColumns`: what tells rows of the chunk apart; the window's changes hold them in old and new rows. */
  constructor(keyColumns: readonly string[], memory: WindowMemory) {
    this.#keyColumns = keyColumns;
    this.#memory = memory;
  }

  /** True if more came than there is memory for: it says nothing then, and the chunk is read again. */
  get overfull(): boolean {
    return this.#overfull;
  }

  /** True if a change did not hold the columns that tell rows apart: the replica identity is another one by now. */
  get keyless(): boolean {
    return this.#keyless;
  }

  /** The shapes (`sourceTail`) that changes in the window had. */
  get shapes(): ReadonlySet<string> {
    return this.#shapes;
  }

  /** True if nothing happened. */
  get empty(): boolean {
    return this.#rows.size === 0 && !this.#truncated;
  }

  /** A new row, all of whose values travelled. */
  inserted(buffer: Buffer, plan: WindowPlan, row: Tuple): void {
    this.#meet(plan);
    this.#complete(this.#keyText(buffer, plan, row, undefined));
  }

  deleted(buffer: Buffer, plan: WindowPlan, old: Tuple): void {
    this.#meet(plan);
    this.#complete(this.#keyText(buffer, plan, old, undefined));
  }

  /** `old`: the old row, or its key; undefined where the key stayed. `whole`: it holds all values. */
  updated(buffer: Buffer, plan: WindowPlan, row: Tuple, old: Tuple | undefined, whole: boolean): void {
    this.#meet(plan);
    const key = this.#keyText(buffer, plan, row, old);
    if (old !== undefined) {
      const oldKey = this.#keyText(buffer, plan, old, undefined);
      if (oldKey !== key) this.#complete(oldKey);
    }
    const before = this.#rows.get(key);
    let missing: Set<number> | undefined;
    for (let i = 0; i < row.count; i++) {
      if (row.start[i] !== UNCHANGED) continue;
      if (whole && old !== undefined && (old.start[i] as number) >= 0) continue;
      // Shown by an earlier change of the window.
      if (before === null || (before !== undefined && !before.missing.has(i))) continue;
      missing ??= new Set();
      missing.add(i);
    }
    if (missing === undefined) {
      this.#complete(key);
      return;
    }
    this.#set(key, keptRow(buffer, row, missing, before ?? undefined));
  }

  truncated(plan: WindowPlan): void {
    this.#meet(plan);
    this.#truncated = true;
  }

  /** Returns what is missing of a row of the chunk: undefined where it did not change, null where the row is dropped. */
  verdict(key: string): IncompleteRow | null | undefined {
    return this.#truncated ? null : this.#rows.get(key);
  }

  overflow(): void {
    this.#overfull = true;
    this.#rows.clear();
  }

  /** It is not needed any more. */
  end(): void {
    this.#memory.release(this);
  }

  #meet(plan: WindowPlan): void {
    if (plan === this.#plan) return;
    this.#plan = plan;
    this.#shapes.add(plan.sourceTail);
    this.#key = this.#keyColumns.map((name) => plan.columns.findIndex((column) => column.name === name));
  }

  #complete(key: string): void {
    this.#set(key, null);
  }

  #set(key: string, row: IncompleteRow | null): void {
    if (this.#overfull) return;
    const before = this.#rows.get(key);
    this.#rows.set(key, row);
    const known = before === undefined ? 0 : key.length * 2 + ENTRY_BYTES + rowBytes(before);
    this.#memory.grow(this, key.length * 2 + ENTRY_BYTES + rowBytes(row) - known);
  }

  #keyText(buffer: Buffer, plan: WindowPlan, row: Tuple, old: Tuple | undefined): string {
    for (const i of this.#key) {
      const from = row.start[i] === UNCHANGED && old !== undefined ? old : row;
      if (i < 0 || (from.start[i] as number) < 0) this.#keyless = true;
    }
    if (this.#key.length === 1) return valueText(buffer, plan, row, old, this.#key[0] as number);
    return joinKeyText(this.#key.map((i) => valueText(buffer, plan, row, old, i)));
  }
}

function rowBytes(row: IncompleteRow | null): number {
  return row === null ? 0 : row.message.length + row.start.length * 8;
}

/**
 * A change of which values are missing, with those of an earlier change that it leaves as they are: who gets the row
 * anew gets them too.
 */
function keptRow(
  buffer: Buffer,
  { start, end, count }: Tuple,
  missing: ReadonlySet<number>,
  before: IncompleteRow | undefined,
): IncompleteRow {
  const kept = { start: start.slice(0, count), end: end.slice(0, count), missing };
  const parts = [buffer];
  let length = buffer.length;
  for (let i = 0; before !== undefined && i < count; i++) {
    const from = before.start[i] as number;
    if (start[i] !== UNCHANGED || missing.has(i)) continue;
    kept.start[i] = from;
    if (from < 0) continue;
    const value = before.message.subarray(from, before.end[i]);
    parts.push(value);
    kept.start[i] = length;
    length += value.length;
    kept.end[i] = length;
  }
  return { message: Buffer.concat(parts, length), ...kept };
}

/** The key text of a chunk's row, as the window has it. */
export function rowKeyText(buffer: Buffer, plan: WindowPlan, row: Tuple, key: readonly number[]): string {
  if (key.length === 1) return valueText(buffer, plan, row, undefined, key[0] as number);
  return joinKeyText(key.map((i) => valueText(buffer, plan, row, undefined, i)));
}

/** Canonical text; nothing where the row lacks it: the window is keyless then, and the chunk is read again. */
function valueText(buffer: Buffer, plan: WindowPlan, row: Tuple, old: Tuple | undefined, i: number): string {
  if (i < 0) return "";
  const from = row.start[i] === UNCHANGED && old !== undefined ? old : row;
  const start = from.start[i] as number;
  if (start === NULL || start === UNCHANGED) return "";
  return (plan.columns[i] as PlannedColumn).type.keyText(buffer, start, from.end[i] as number);
}

/** Keeps memory here; asked to let go of it when all together have too much. */
export interface MemoryHolder {
  /** Lets go of all; what it knew is lost. */
  overflow(): void;
}

const MAX_BYTES = 64 * 1024 * 1024;

/**
 * The memory that the windows of all tables share: with more than the bound, the largest one lets go, so that a table that
 * changes much does not take the place of the others.
 */
export class WindowMemory {
  readonly #maxBytes: number;
  readonly #held = new Map<MemoryHolder, number>();
  #bytes = 0;

  /** `maxBytes`: of all together. */
  constructor(maxBytes = MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes that are held. */
  get bytes(): number {
    return this.#bytes;
  }

  grow(holder: MemoryHolder, bytes: number): void {
    this.#held.set(holder, (this.#held.get(holder) ?? 0) + bytes);
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes) {
      const [largest] = [...this.#held].reduce((most, one) => (one[1] > most[1] ? one : most));
      this.release(largest);
      largest.overflow();
    }
  }

  release(holder: MemoryHolder): void {
    this.#bytes -= this.#held.get(holder) ?? 0;
    this.#held.delete(holder);
  }
}

/** Prefixes of the logical messages around a chunk: what the log holds between them may be older or newer than the chunk. */
export const LOW_WATERMARK = "tributary.low";
/** Of the message behind a chunk. */
export const HIGH_WATERMARK = "tributary.high";

const watermarkContent = z.object({
  /** The slot whose stream it is for: every slot of the database gets it. */
  slot: z.string(),
  /** The process that wrote it: watermarks of one that was killed mean nothing. */
  task: z.string(),
  table: z.string(),
  run: z.int(),
  chunk: z.int(),
  /** Counts the reads of the task, so that no two have the same watermark. */
  attempt: z.int(),
});

/** The read of a chunk that a watermark belongs to (rule 24). */
export type Watermark = z.output<typeof watermarkContent>;

/** The watermark in a message, or undefined where the content is none of ours. */
export function readWatermark(content: Buffer): Watermark | undefined {
  try {
    return watermarkContent.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
}

/**
 * The statement that writes a watermark and flushes the log: the stream shows only what is flushed. From 17 the function
 * does it; before, a commit with a transaction id does (not waiting for standbys).
 * https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
export function watermarkSql(prefix: string, watermark: Watermark, version: number): string {
  const content = pg.escapeLiteral(JSON.stringify(watermark));
  if (version >= 170_000)
    return `SELECT pg_logical_emit_message(false, '${prefix}', ${content}, true) AS lsn`;
  return `BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id(); SELECT pg_logical_emit_message(false, '${prefix}', ${content}) AS lsn; COMMIT`;
}
