import { MalformedMessageError } from "../decode/decode-errors.ts";
import { NULL, type Tuple } from "../decode/pgoutput/tuple.ts";
import type { TextDecode } from "../decode/values/charset.ts";
import { NotText } from "../decode/values/encoder.ts";

const TAB = 0x09;
const BACKSLASH = 0x5c;

/** What COPY escapes as a letter: `\b` and so on. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS */
const LETTERS: Readonly<Record<number, number>> = {
  98: 8,
  102: 12,
  110: 10,
  114: 13,
  116: 9,
  118: 11,
};

/**
 * Reads a row of COPY text at `[start, end)` (without its line end) as a tuple: where each column's text stands. Escapes
 * are undone in place: the text only becomes shorter. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
 *
 * @throws MalformedMessageError where it has not this number of columns.
 */
export function readCopiedRow(buffer: Buffer, start: number, end: number, columns: number, row: Tuple): void {
  row.reserve(columns);
  const { start: starts, end: ends } = row;
  let from = start;
  for (let column = 0; column < columns; column++) {
    if (from > end) throw malformed(columns, column);
    let at = from;
    let byte = 0;
    while (at < end) {
      byte = buffer[at] as number;
      if (byte === TAB || byte === BACKSLASH) break;
      at++;
    }
    starts[column] = from;
    ends[column] = at;
    if (at < end && byte === BACKSLASH) {
      // The null of COPY, since a text of a backslash and an N would be escaped.
      if (at === from && buffer[at + 1] === 0x4e) {
        starts[column] = NULL;
        ends[column] = NULL;
        at += 2;
      } else at = undoEscapes(buffer, at, end, column, ends);
    }
    from = at + 1;
  }
  if (from !== end + 1 && (columns > 0 || end > start)) throw malformed(columns, columns + 1);
}

/** Undoes the escapes of a column from the first on; gives where it ended in COPY's text. */
function undoEscapes(buffer: Buffer, first: number, end: number, column: number, ends: Int32Array): number {
  let to = first;
  let at = first;
  while (at < end) {
    const byte = buffer[at] as number;
    if (byte === TAB) break;
    if (byte === BACKSLASH) {
      const next = buffer[at + 1] as number;
      buffer[to++] = LETTERS[next] ?? next;
      at += 2;
    } else {
      buffer[to++] = byte;
      at++;
    }
  }
  ends[column] = to;
  return at;
}

/** The texts of these columns of a copied row; undefined where one is null or no text for `decode`. */
export function readTexts(
  line: Buffer,
  columns: number,
  wanted: readonly number[],
  row: Tuple,
  decode: TextDecode,
): string[] | undefined {
  const own = Buffer.from(line);
  readCopiedRow(own, 0, own.length, columns, row);
  const texts: string[] = [];
  for (const i of wanted) {
    const start = row.start[i] as number;
    if (start < 0) return undefined;
    try {
      texts.push(decode(own, start, row.end[i] as number));
    } catch (error) {
      if (error instanceof NotText) return undefined;
      throw error;
    }
  }
  return texts;
}

function malformed(expected: number, got: number): MalformedMessageError {
  return new MalformedMessageError({
    type: "CopyData",
    offset: 0,
    expected: `${expected} columns`,
    got: `${got} or more`,
  });
}
