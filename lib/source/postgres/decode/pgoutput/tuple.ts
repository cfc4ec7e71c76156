import { type MessageReader, showByte } from "./reader.ts";

/** `Tuple.start` of a column that is null. */
export const NULL = -1;
/** `Tuple.start` of a column whose stored (TOAST) value did not travel. */
export const UNCHANGED = -2;

/**
 * The row of a change: where in the message each column's text stands. Reused from message to message.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TUPLEDATA
 */
export class Tuple {
  count = 0;
  /** Byte offset of each column's text, or `NULL`, or `UNCHANGED`. */
  start = new Int32Array(64);
  end = new Int32Array(64);

  /** Makes it one of this many columns, to be filled in. */
  reserve(columns: number): void {
    if (columns > this.start.length) {
      this.start = new Int32Array(columns);
      this.end = new Int32Array(columns);
    }
    this.count = columns;
  }

  decode(reader: MessageReader, columns: number): void {
    const count = reader.count16("number of columns");
    if (count !== columns) {
      throw reader.malformed(`${columns} columns, as in the relation`, `${count} columns`, 2);
    }
    this.reserve(count);
    for (let i = 0; i < count; i++) {
      const kind = reader.uint8("kind of column value");
      if (kind === 0x74) {
        this.start[i] = reader.sized("column value");
        this.end[i] = reader.offset;
      } else if (kind === 0x6e) this.start[i] = NULL;
      else if (kind === 0x75) this.start[i] = UNCHANGED;
      else {
        throw reader.malformed("'t' (text), 'n' (null) or 'u' (unchanged)", showByte(kind), 1);
      }
    }
  }
}
