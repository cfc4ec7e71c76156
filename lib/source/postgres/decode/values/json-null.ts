import { closingQuote, encodeQuoted, skipBounds } from "./array.ts";

/** The place of a JSON null in a value: indexes of arrays, from 0, outermost first; none for the value itself. */
export type NullPath = readonly number[];

/** Finds the JSON nulls of a value's text form: `null` as json, which a column tells apart from NULL and JSON does not. */
export type JsonNullFinder = (buffer: Buffer, start: number, end: number) => readonly NullPath[];

const NONE: readonly NullPath[] = [];
const WHOLE: readonly NullPath[] = [[]];
const OPEN = 0x7b;
const CLOSE = 0x7d;
const QUOTE = 0x22;
const LETTER_N = 0x6e;

/** Of json and jsonb: of all their values only null begins with an n. */
export const jsonNullAt: JsonNullFinder = (buffer, start, end) => {
  let at = start;
  while (at < end && isBlank(buffer[at] as number)) at++;
  return at < end && buffer[at] === LETTER_N ? WHOLE : NONE;
};

/** Of arrays, at any depth. NULL is never quoted in their text, and an element that reads null always is. */
export function arrayJsonNulls(element: JsonNullFinder, delimiter: string): JsonNullFinder {
  const separator = delimiter.charCodeAt(0);
  return (buffer, start, end) => {
    const first = buffer.indexOf("null", start);
    if (first === -1 || first >= end) return NONE;
    const found: NullPath[] = [];
    const path: number[] = [];
    for (let at = skipBounds(buffer, start, end); at < end; at++) {
      const byte = buffer[at] as number;
      if (byte === OPEN) path.push(0);
      else if (byte === CLOSE) path.pop();
      else if (byte === separator) path.push((path.pop() ?? 0) + 1);
      else if (byte === QUOTE) {
        const close = closingQuote(buffer, at + 1, end);
        encodeQuoted(
          (text, from, to) => {
            for (const inner of element(text, from, to)) found.push([...path, ...inner]);
            return "";
          },
          buffer,
          at + 1,
          close,
        );
        at = close;
      }
    }
    return found;
  };
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
