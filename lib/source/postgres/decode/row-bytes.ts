import { murmur3Bytes } from "../../../change/topic.ts";
import { TextEncodingError, ValueFormatError } from "./decode-errors.ts";
import type { EventBytes } from "./event-bytes.ts";
import { NULL, type Tuple, UNCHANGED } from "./pgoutput/tuple.ts";
import type { PlannedColumn, RelationPlan } from "./relation-plan.ts";
import type { RowText } from "./row-text.ts";
import { NotText, ValueMismatch } from "./values/encoder.ts";

const OPEN = 0x7b;
const CLOSE = 0x7d;
const COMMA = 0x2c;
const NULL_TEXT = Buffer.from("null");
const UNCHANGED_HEAD = Buffer.from(',"unchanged":[');
const JSON_NULL_HEAD = Buffer.from(',"jsonNull":[');
const OLD_JSON_NULL_HEAD = Buffer.from(',"jsonNullBefore":[');

/**
 * Writes the rows of one change as UTF-8: what `RowText` gives as text, without the text. One serves all changes.
 * It leaves rare cases to `RowText`, such as keys of forms that print equal values differently.
 */
export class RowBytes {
  readonly #out: EventBytes;
  readonly #text: RowText;
  #buffer: Buffer = Buffer.alloc(0);
  #plan: RelationPlan | undefined;
  #lsn: () => string = () => "";
  /** Of the row written last by `row`: columns whose value did not travel. */
  #unchanged: number[] = [];
  /** Of the row written last by `row`, and by `before`: where JSON nulls stand, as entries of `jsonNull`. */
  readonly #jsonNulls: string[] = [];
  readonly #oldJsonNulls: string[] = [];
  /** The keys of several columns, joined. */
  #key: Buffer = Buffer.alloc(256);

  constructor(out: EventBytes, text: RowText) {
    this.#out = out;
    this.#text = text;
  }

  /** Begins a change: the message, its relation, its LSN (for errors). */
  begin(buffer: Buffer, plan: RelationPlan, lsn: () => string): this {
    this.#buffer = buffer;
    this.#plan = plan;
    this.#lsn = lsn;
    clear(this.#jsonNulls);
    clear(this.#oldJsonNulls);
    return this;
  }

  /** The same change for `RowText`. */
  text(): RowText {
    return this.#text.begin(this.#buffer, this.#plan as RelationPlan, this.#lsn());
  }

  /** The new row as a JSON object. Values that did not travel come from `old`, if it is whole, or are noted for `unchanged`. */
  row(row: Tuple, old: Tuple | undefined): void {
    const { columns } = this.#plan as RelationPlan;
    clear(this.#unchanged);
    clear(this.#jsonNulls);
    let first = true;
    for (let i = 0; i < row.count; i++) {
      let from = row;
      if (row.start[i] === UNCHANGED) {
        // A value that did not travel is never null: an old row that says so is not whole after all.
        if (old === undefined || old.start[i] === NULL || old.start[i] === UNCHANGED) {
          this.#unchanged.push(i);
          continue;
        }
        from = old;
      }
      this.#member(columns[i] as PlannedColumn, from, i, first ? OPEN : COMMA, this.#jsonNulls);
      first = false;
    }
    this.#close(first);
  }

  /** True if every value of the row written last by `row` travelled. */
  get isWhole(): boolean {
    return this.#unchanged.length === 0;
  }

  /** Writes what an event says of its rows beside them, each where there is some: `unchanged`, `jsonNull`, `jsonNullBefore`. */
  notes(): void {
    this.#writeUnchanged();
    this.#writeList(JSON_NULL_HEAD, this.#jsonNulls);
    this.#writeList(OLD_JSON_NULL_HEAD, this.#oldJsonNulls);
  }

  /** The same for an event that has the old row alone. */
  notesOfOld(): void {
    this.#writeList(JSON_NULL_HEAD, this.#oldJsonNulls);
    clear(this.#oldJsonNulls);
  }

  #writeList(head: Buffer, entries: readonly string[]): void {
    if (entries.length === 0) return;
    this.#out.copy(head);
    this.#out.text(`${entries.join()}]`);
  }

  #writeUnchanged(): void {
    if (this.#unchanged.length === 0) return;
    const { columns } = this.#plan as RelationPlan;
    this.#out.copy(UNCHANGED_HEAD);
    const names = this.#unchanged.map((i) => JSON.stringify((columns[i] as PlannedColumn).name));
    this.#out.text(`${names.join()}]`);
  }

  /** The old row as a JSON object: all of it, or the columns of the replica identity. */
  before(old: Tuple, whole: boolean): void {
    const { columns } = this.#plan as RelationPlan;
    clear(this.#oldJsonNulls);
    let first = true;
    for (let i = 0; i < old.count; i++) {
      const column = columns[i] as PlannedColumn;
      if ((!whole && !column.identity) || old.start[i] === UNCHANGED) continue;
      this.#member(column, old, i, first ? OPEN : COMMA, this.#oldJsonNulls);
      first = false;
    }
    this.#close(first);
  }

  /** The hash of the row's key; undefined: it is for `RowText.keyText` to say what the key is. */
  keyHash(row: Tuple, old: Tuple | undefined): number | undefined {
    const { key, columns } = this.#plan as RelationPlan;
    const [only] = key;
    if (key.length === 1 && only !== undefined) {
      const from = row.start[only] === UNCHANGED && old !== undefined ? old : row;
      const start = from.start[only] as number;
      const end = from.end[only] as number;
      if (start < 0 || !columns[only]?.type.keyIsText || !isAscii(this.#buffer, start, end)) return undefined;
      return murmur3Bytes(this.#buffer, start, end);
    }
    let length = 0;
    for (let k = 0; k < key.length; k++) {
      const i = key[k] as number;
      const from = row.start[i] === UNCHANGED && old !== undefined ? old : row;
      const start = from.start[i] as number;
      const end = from.end[i] as number;
      if (start < 0 || !columns[i]?.type.keyIsText || !isAscii(this.#buffer, start, end)) return undefined;
      if (length + 1 + end - start > this.#key.length) return undefined;
      if (k > 0) this.#key[length++] = 0;
      for (let at = start; at < end; at++) this.#key[length++] = this.#buffer[at] as number;
    }
    return murmur3Bytes(this.#key, 0, length);
  }

  /** Returns true if the row's own key or the partition's key is another one, by canonical text. */
  keyChanged(old: Tuple, row: Tuple): boolean {
    for (const i of (this.#plan as RelationPlan).watched) {
      if (row.start[i] === UNCHANGED || this.#equal(old, row, i)) continue;
      // The bytes differ; whether the key does is for the canonical texts to say.
      return this.text().keyChanged(old, row);
    }
    return false;
  }

  #equal(a: Tuple, b: Tuple, i: number): boolean {
    const [from, to] = [a.start[i] as number, b.start[i] as number];
    const length = (a.end[i] as number) - from;
    if (from < 0 || to < 0 || length !== (b.end[i] as number) - to) return false;
    const buffer = this.#buffer;
    for (let at = 0; at < length; at++) if (buffer[from + at] !== buffer[to + at]) return false;
    return true;
  }

  /** `{"id":17` or `,"id":17` */
  #member(column: PlannedColumn, from: Tuple, i: number, before: number, jsonNulls: string[]): void {
    const out = this.#out;
    const { prefixBytes, type } = column;
    out.reserve(1 + prefixBytes.length);
    out.bytes[out.length++] = before;
    out.copy(prefixBytes);
    const start = from.start[i] as number;
    if (start === NULL) out.copy(NULL_TEXT);
    else {
      try {
        type.write(this.#buffer, start, from.end[i] as number, out);
        if (type.jsonNulls !== undefined)
          this.#findJsonNulls(column, start, from.end[i] as number, jsonNulls);
      } catch (error) {
        throw this.#named(error, column);
      }
    }
  }

  /** Apart from `#member`, which stays small enough to be inlined. */
  #findJsonNulls({ name, type }: PlannedColumn, start: number, end: number, jsonNulls: string[]): void {
    for (const path of type.jsonNulls?.(this.#buffer, start, end) ?? [])
      jsonNulls.push(JSON.stringify(path.length === 0 ? name : [name, ...path]));
  }

  #close(empty: boolean): void {
    const out = this.#out;
    out.reserve(2);
    if (empty) out.bytes[out.length++] = OPEN;
    out.bytes[out.length++] = CLOSE;
  }

  #named(error: unknown, { name }: PlannedColumn): unknown {
    const place = { table: (this.#plan as RelationPlan).table, column: name, lsn: this.#lsn() };
    if (error instanceof NotText) return new TextEncodingError(place, error.encoding);
    if (error instanceof ValueMismatch) return new ValueFormatError(place, error.expected);
    return error;
  }
}

/** To set the length of an array costs more than to look at it. */
function clear(list: unknown[]): void {
  if (list.length > 0) list.length = 0;
}

function isAscii(buffer: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if ((buffer[at] as number) > 127) return false;
  return true;
}
