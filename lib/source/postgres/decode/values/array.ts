import { type ValueEncoder, ValueMismatch } from "./encoder.ts";

const OPEN = 0x7b;
const CLOSE = 0x7d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * PostgreSQL's array text → a JSON array with each element by `element`: nested as it is nested, NULL as null.
 * Lower bounds other than 1 (`[2:4]={…}`) are not part of the result.
 * https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
 */
export function arrayEncoder(element: ValueEncoder, delimiter: string): ValueEncoder {
  const separator = delimiter.charCodeAt(0);
  return (buffer, start, end) => {
    let at = skipBounds(buffer, start, end);
    let depth = 0;
    let json = "";
    /** True if a value may stand here: behind a brace or a delimiter, not behind a value. */
    let open = true;
    do {
      const byte = at < end ? (buffer[at] as number) : -1;
      if (byte === OPEN && open) {
        depth++;
        json += "[";
        at++;
        if (buffer[at] === CLOSE && at < end) open = false;
      } else if (byte === CLOSE && !open) {
        depth--;
        json += "]";
        at++;
      } else if (byte === separator && !open) {
        open = true;
        json += ",";
        at++;
      } else if (open && depth > 0 && byte !== -1) {
        open = false;
        if (byte === QUOTE) {
          const close = closingQuote(buffer, at + 1, end);
          json += encodeQuoted(element, buffer, at + 1, close);
          at = close + 1;
        } else {
          const stop = unquotedEnd(buffer, at, end, separator);
          json += isNull(buffer, at, stop) ? "null" : element(buffer, at, stop);
          at = stop;
        }
      } else throw mismatch();
    } while (depth > 0);
    if (at !== end) throw mismatch();
    return json;
  };
}

/** `[2:4][0:1]={…` → where the brace stands. */
export function skipBounds(buffer: Buffer, start: number, end: number): number {
  if (buffer[start] !== 0x5b || start >= end) return start;
  const equals = buffer.indexOf(0x3d, start);
  if (equals === -1 || equals >= end) throw mismatch();
  return equals + 1;
}

function unquotedEnd(buffer: Buffer, start: number, end: number, separator: number): number {
  let at = start;
  for (; at < end; at++) {
    const byte = buffer[at];
    if (byte === separator || byte === CLOSE) break;
    if (byte === OPEN || byte === QUOTE || byte === BACKSLASH) throw mismatch();
  }
  if (at === start || at === end) throw mismatch();
  return at;
}

function isNull(buffer: Buffer, start: number, end: number): boolean {
  return end - start === 4 && buffer.toString("latin1", start, end) === "NULL";
}

/** Returns the place of the double quote that closes what begins at `start`. */
export function closingQuote(buffer: Buffer, start: number, end: number): number {
  for (let at = start; at < end; at++) {
    const byte = buffer[at];
    if (byte === QUOTE) return at;
    if (byte === BACKSLASH) at++;
  }
  throw mismatch();
}

/** Encodes what stands between two double quotes, its backslashes resolved. */
export function encodeQuoted(encode: ValueEncoder, buffer: Buffer, start: number, end: number): string {
  const first = buffer.indexOf(BACKSLASH, start);
  if (first === -1 || first >= end) return encode(buffer, start, end);
  const plain = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; at++) {
    if (buffer[at] === BACKSLASH) at++;
    plain[length++] = buffer[at] as number;
  }
  return encode(plain, 0, length);
}

function mismatch(): ValueMismatch {
  return new ValueMismatch("PostgreSQL's text form of an array");
}
