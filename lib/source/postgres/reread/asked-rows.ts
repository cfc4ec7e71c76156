import type { PositionText } from "../../../change/position.ts";
import type { AskedRow, AskedTable } from "./reread-record.ts";

/** So much is named of one table at most; with more, the whole table is read again. */
const MAX_ROWS = 1_000;
const MAX_BYTES = 100 * 1024;
/** Of a row beside the text of its key. */
const ROW_BYTES = 80;

/**
 * The rows of one table that are to be read again while the capture task runs, and which of them the record does not know yet. A row
 * leaves once the rows that were read are acknowledged, and it was not asked for anew meanwhile.
 */
export class AskedRows {
  readonly table: string;
  /** True if rows that another task may have written are in here. */
  known: boolean;
  #rows = new Map<string, AskedRow>();
  #bytes = 0;
  #whole: PositionText | undefined;
  /** Read and given, in the order of the log, until it is acknowledged. */
  #given: { readonly lsn: bigint; readonly rows: readonly AskedRow[] }[] = [];
  /** Rows that are given, or that this task cannot give. */
  readonly #passed = new Set<AskedRow>();
  #dirty = false;
  /** Place of the first commit whose requests are not in the record; `#writing`: of those that are being written. */
  #unwritten: bigint | undefined;
  #writing: bigint | undefined;

  constructor(table: string, known: boolean) {
    this.table = table;
    this.known = known;
  }

  /** Takes in what the record has. */
  add({ rows, whole }: AskedTable): void {
    for (const row of rows) if (!this.#rows.has(idOf(row))) this.#set(row);
    if (whole !== undefined) this.#setWhole(whole);
    this.#dirty = true;
  }

  /** Asks for a row, or for the table where its key cannot be named; `commitLsn`: where the commit of its change stands. */
  ask(key: AskedRow["key"] | undefined, at: PositionText, commitLsn: bigint): void {
    if (key === undefined) this.#setWhole(at);
    else this.#set({ key, at });
    this.#dirty = true;
    if (this.#unwritten === undefined || commitLsn < this.#unwritten) this.#unwritten = commitLsn;
  }

  /** Rows cannot be had one by one: the whole table is asked for in their place. */
  askWhole(): void {
    const last = [...this.#rows.values()]
      .map(({ at }) => at)
      .sort()
      .at(-1);
    if (last === undefined) return;
    this.#forgetRows();
    this.#setWhole(last);
    this.#dirty = true;
  }

  /** The whole table is to be read, as it stands behind this position. */
  get whole(): PositionText | undefined {
    return this.#whole;
  }

  /** The table was read as a whole; undefined again unless more was asked for since. */
  wholeRead(at: PositionText): void {
    if (this.#whole !== at) return;
    this.#whole = undefined;
    this.#dirty = true;
  }

  /** Number of rows that wait. */
  get count(): number {
    return this.#rows.size;
  }

  get isEmpty(): boolean {
    return this.#rows.size === 0 && this.#whole === undefined;
  }

  /** Rows to be read next, in the order they were asked for: at most `count`, or all. */
  next(count?: number): AskedRow[] {
    const rows: AskedRow[] = [];
    for (const row of this.#rows.values()) {
      if (this.#passed.has(row)) continue;
      if (rows.push(row) === count) break;
    }
    return rows;
  }

  /** Notes that these rows, as far as they exist, stand in the stream before `lsn`. */
  given(rows: readonly AskedRow[], lsn: bigint): void {
    for (const row of rows) this.#passed.add(row);
    this.#given.push({ lsn, rows });
  }

  /** These cannot be given by this task: they stay for the next one. */
  setAside(rows: readonly AskedRow[]): void {
    for (const row of rows) this.#passed.add(row);
  }

  /** Everything up to `lsn` is durable downstream. Tells whether that was news. */
  acknowledge(lsn: bigint): boolean {
    let news = false;
    while (this.#given[0] && this.#given[0].lsn <= lsn) {
      for (const row of this.#given.shift()?.rows ?? []) this.#remove(row);
      news = true;
    }
    this.#dirty ||= news;
    return news;
  }

  /** True if the record is to be written. */
  get isDirty(): boolean {
    return this.#dirty;
  }

  /** Takes the rows that the record is to hold now; `written` must follow. */
  take(): AskedTable {
    this.#dirty = false;
    this.#writing = this.#unwritten;
    this.#unwritten = undefined;
    const whole = this.#whole === undefined ? {} : { whole: this.#whole };
    return { table: this.table, rows: [...this.#rows.values()], ...whole };
  }

  /** The record holds what was taken. */
  written(): void {
    this.#writing = undefined;
  }

  /** The slot must not be confirmed beyond this; undefined: the record has it all. */
  get bound(): bigint | undefined {
    if (this.#writing === undefined || this.#unwritten === undefined) return this.#writing ?? this.#unwritten;
    return this.#writing < this.#unwritten ? this.#writing : this.#unwritten;
  }

  #set(row: AskedRow): void {
    const id = idOf(row);
    const before = this.#rows.get(id);
    if (before) this.#remove(before);
    this.#rows.set(id, row);
    this.#bytes += id.length + ROW_BYTES;
    // A change that was held, or that another task asked for, is of an earlier commit than those that are here.
    if (this.#rows.size > MAX_ROWS || this.#bytes > MAX_BYTES) this.askWhole();
  }

  #setWhole(at: PositionText): void {
    if (this.#whole === undefined || this.#whole < at) this.#whole = at;
  }

  #remove(row: AskedRow): void {
    this.#passed.delete(row);
    const id = idOf(row);
    if (this.#rows.get(id) !== row) return;
    this.#rows.delete(id);
    this.#bytes -= id.length + ROW_BYTES;
  }

  #forgetRows(): void {
    this.#rows.clear();
    this.#passed.clear();
    this.#given = [];
    this.#bytes = 0;
  }
}

function idOf({ key }: AskedRow): string {
  return JSON.stringify(key);
}
