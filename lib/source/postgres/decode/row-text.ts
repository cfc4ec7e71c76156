import {
  KeyValueMissingError,
  TextEncodingError,
  ValueFormatError,
  type ValuePlace,
} from "./decode-errors.ts";
import { joinKeyText } from "./key-text.ts";
import { NULL, type Tuple, UNCHANGED } from "./pgoutput/tuple.ts";
import type { PlannedColumn, RelationPlan } from "./relation-plan.ts";
import { NotText, type ValueEncoder, ValueMismatch } from "./values/encoder.ts";

const EMPTY = Buffer.alloc(0);
const NO_PLAN: Pick<RelationPlan, "columns" | "key" | "watched" | "table"> = {
  columns: [],
  key: [],
  watched: [],
  table: "",
};

/** Writes keys, and single values, of one change as text. One serves all changes. */
export class RowText {
  #buffer: Buffer = EMPTY;
  #plan = NO_PLAN;
  #lsn = "";

  /** Begins a change: the message, its relation, its LSN (for errors). */
  begin(buffer: Buffer, plan: RelationPlan, lsn: string): this {
    this.#buffer = buffer;
    this.#plan = plan;
    this.#lsn = lsn;
    return this;
  }

  /** The JSON text of one value of the new row. */
  value(row: Tuple, i: number): string {
    const start = row.start[i] as number;
    return start < 0 ? "null" : this.#read(this.#column(i).type.encode, start, row.end[i] as number, i);
  }

  /** Key text that chooses the partition. @throws KeyValueMissingError (rule 4). */
  keyText(row: Tuple, old: Tuple | undefined): string {
    const { key } = this.#plan;
    if (key.length === 1) return this.#keyValue(row, old, key[0] as number);
    return joinKeyText(key.map((i) => this.#keyValue(row, old, i)));
  }

  /** Returns true if the row's own key or the partition's key is another one, by canonical text. */
  keyChanged(old: Tuple, row: Tuple): boolean {
    for (const i of this.#plan.watched) {
      if (row.start[i] === UNCHANGED) continue;
      if (this.#keyValue(old, undefined, i) !== this.#keyValue(row, undefined, i)) return true;
    }
    return false;
  }

  /** The member `keyChange` of `source`. */
  keyChange(old: Tuple, row: Tuple): string {
    const members = (from: (i: number) => Tuple) =>
      this.#plan.watched.map((i) => this.#member(from(i), i)).join();
    const to = members((i) => (row.start[i] === UNCHANGED ? old : row));
    return `,"keyChange":{"from":{${members(() => old)}},"to":{${to}}}`;
  }

  #keyValue(row: Tuple, old: Tuple | undefined, i: number): string {
    const from = row.start[i] === UNCHANGED && old !== undefined ? old : row;
    const start = from.start[i] as number;
    if (start < 0) throw new KeyValueMissingError(this.#place(i));
    return this.#read(this.#column(i).type.keyText, start, from.end[i] as number, i);
  }

  /** `"id":17` */
  #member(from: Tuple, i: number): string {
    const { prefix, type } = this.#column(i);
    const start = from.start[i] as number;
    if (start === NULL) return `${prefix}null`;
    return prefix + this.#read(type.encode, start, from.end[i] as number, i);
  }

  #read(encode: ValueEncoder, start: number, end: number, i: number): string {
    try {
      return encode(this.#buffer, start, end);
    } catch (error) {
      if (error instanceof NotText) throw new TextEncodingError(this.#place(i), error.encoding);
      if (error instanceof ValueMismatch) throw new ValueFormatError(this.#place(i), error.expected);
      throw error;
    }
  }

  #column(i: number): PlannedColumn {
    return this.#plan.columns[i] as PlannedColumn;
  }

  #place(i: number): ValuePlace {
    return { table: this.#plan.table, column: this.#column(i).name, lsn: this.#lsn };
  }
}
