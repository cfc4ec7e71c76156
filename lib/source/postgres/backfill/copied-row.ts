import { MalformedMessageError } from "../decode-errors.ts";
import { NULL, type Tuple } from "../pgoutput/tuple.ts";

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
  if (columns === 0) {
    if (end > start) throw malformed(columns, 1);
    return;
  }
  const { start: starts, end: ends } = row;
  let column = 0;
  let from = start;
  let to = start;
  let at = start;
  for (;;) {
    const byte = at < end ? (buffer[at] as number) : TAB;
    if (byte === TAB) {
      if (column >= columns) throw malformed(columns, column + 1);
      starts[column] = from;
      ends[column++] = to;
      if (at >= end) break;
      from = to = ++at;
    } else if (byte === BACKSLASH) {
      const next = buffer[at + 1] as number;
      // The null of COPY, since a text of a backslash and an N would be escaped.
      if (next === 0x4e && at === from) {
        if (column >= columns) throw malformed(columns, column + 1);
        starts[column] = NULL;
        ends[column++] = NULL;
        at += 2;
        if (at >= end) break;
        from = to = ++at;
      } else {
        buffer[to++] = LETTERS[next] ?? next;
        at += 2;
      }
    } else {
      if (to !== at) buffer[to] = byte;
      to++;
      at++;
    }
  }
  if (column !== columns) throw malformed(columns, column);
}

/** The texts of these columns of a copied row, as UTF-8; undefined where one is null or not UTF-8. */
export function readTexts(
  line: Buffer,
  columns: number,
  wanted: readonly number[],
  row: Tuple,
): string[] | undefined {
  const own = Buffer.from(line);
  readCopiedRow(own, 0, own.length, columns, row);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const texts: string[] = [];
  for (const i of wanted) {
    const start = row.start[i] as number;
    if (start < 0) return undefined;
    try {
      texts.push(decoder.decode(own.subarray(start, row.end[i])));
    } catch {
      return undefined;
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
