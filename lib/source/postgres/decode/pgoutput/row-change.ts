import { type MessageReader, showByte } from "./reader.ts";
import type { Tuple } from "./tuple.ts";

/*
 * The messages that hold rows. The caller reads the relation's OID first (`reader.uint32`), since a row can be
 * read only with the relation's number of columns.
 */

/** The part of the old row that an UPDATE or DELETE carries: nothing, the replica identity's columns, or all. */
export type OldRow = "none" | "key" | "full";

const NEW = 0x4e;
const KEY = 0x4b;
const FULL = 0x4f;

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-INSERT */
export function decodeInsert(reader: MessageReader, columns: number, row: Tuple): void {
  expect(reader, NEW, "'N' (new row)");
  row.decode(reader, columns);
  reader.close();
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-UPDATE */
export function decodeUpdate(reader: MessageReader, columns: number, old: Tuple, row: Tuple): OldRow {
  const kind = reader.uint8("kind of row");
  let oldRow: OldRow = "none";
  if (kind === KEY || kind === FULL) {
    oldRow = kind === KEY ? "key" : "full";
    old.decode(reader, columns);
    expect(reader, NEW, "'N' (new row)");
  } else if (kind !== NEW) {
    throw reader.malformed("'K' (old key), 'O' (old row) or 'N' (new row)", showByte(kind), 1);
  }
  row.decode(reader, columns);
  reader.close();
  return oldRow;
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-DELETE */
export function decodeDelete(reader: MessageReader, columns: number, old: Tuple): Exclude<OldRow, "none"> {
  const kind = reader.uint8("kind of row");
  if (kind !== KEY && kind !== FULL) {
    throw reader.malformed("'K' (old key) or 'O' (old row)", showByte(kind), 1);
  }
  old.decode(reader, columns);
  reader.close();
  return kind === KEY ? "key" : "full";
}

function expect(reader: MessageReader, byte: number, what: string): void {
  const got = reader.uint8("kind of row");
  if (got !== byte) throw reader.malformed(what, showByte(got), 1);
}
