import { isUtf8 } from "node:buffer";
import type { EventBytes } from "../event-bytes.ts";
import type { BuiltinForm } from "./builtin-types.ts";
import { NotText, type ValueEncoder } from "./encoder.ts";
import type { TextEncoding } from "./text.ts";

/*
 * The values that most tables are made of, from PostgreSQL's text to JSON byte by byte, without a text between. Each
 * writer takes the common form itself and leaves every other to the encoder of its type, which also refuses.
 */

/** Writes the JSON of a value's text form, which stands in `buffer[start, end)`. Throws what its encoder throws. */
export type ValueWriter = (buffer: Buffer, start: number, end: number, out: EventBytes) => void;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Class of each byte in a JSON string: 0 as it is, 1 to be escaped, 2 not ASCII. */
const KIND = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte > 127 ? 2 : byte < 0x20 || byte === QUOTE || byte === BACKSLASH ? 1 : 0,
);
/** Letters of the short escapes. https://www.rfc-editor.org/rfc/rfc8259#section-7 */
const SHORT: Readonly<Record<number, number>> = {
  8: 0x62,
  9: 0x74,
  10: 0x6e,
  12: 0x66,
  13: 0x72,
  34: QUOTE,
  92: BACKSLASH,
};
const HEX = Buffer.from("0123456789abcdef");

/** The writer for a form of value whose encoder is `encode`. */
export function valueWriter(form: BuiltinForm, encoding: TextEncoding, encode: ValueEncoder): ValueWriter {
  const utf8 = encoding === "utf-8";
  switch (form) {
    case "text":
    case "numeric":
    case "bpchar":
      return utf8 ? writeText : encodedWriter(encode);
    case "json":
      return utf8 ? writeJson : encodedWriter(encode);
    case "boolean":
      return writeBoolean(encode);
    case "number":
    case "float":
      return writeNumber(encode);
    case "timestamp":
      return writeTimestamp(encode, false);
    case "timestamptz":
      return writeTimestamp(encode, true);
    default:
      return encodedWriter(encode);
  }
}

/** Writes by way of a text. */
export function encodedWriter(encode: ValueEncoder): ValueWriter {
  return (buffer, start, end, out) => out.text(encode(buffer, start, end));
}

/** UTF-8 as a JSON string. */
const writeText: ValueWriter = (buffer, start, end, out) => {
  out.reserve(end - start + 2);
  const { bytes } = out;
  let to = out.length;
  bytes[to++] = QUOTE;
  let at = start;
  let ascii = true;
  for (; at < end; at++) {
    const byte = buffer[at] as number;
    const kind = KIND[byte];
    if (kind !== 0) {
      if (kind === 1) break;
      ascii = false;
    }
    bytes[to++] = byte;
  }
  if (at < end) {
    out.length = to;
    writeEscaped(buffer, at, end, out);
    // Whole and not from here: a broken character could begin before.
    if (!isUtf8(buffer.subarray(start, end))) throw new NotText(start);
    return;
  }
  if (!ascii && !isUtf8(buffer.subarray(start, end))) throw new NotText(start);
  bytes[to++] = QUOTE;
  out.length = to;
};

/** The rest of a string, some of which needs escapes, and the quote that closes it. */
function writeEscaped(buffer: Buffer, start: number, end: number, out: EventBytes): void {
  let more = 1;
  for (let at = start; at < end; at++) {
    const byte = buffer[at] as number;
    if (KIND[byte] === 1) more += SHORT[byte] === undefined ? 5 : 1;
  }
  out.reserve(end - start + more);
  const { bytes } = out;
  let to = out.length;
  for (let at = start; at < end; at++) {
    const byte = buffer[at] as number;
    if (KIND[byte] !== 1) bytes[to++] = byte;
    else {
      bytes[to++] = BACKSLASH;
      const letter = SHORT[byte];
      if (letter !== undefined) bytes[to++] = letter;
      else {
        bytes[to++] = 0x75;
        bytes[to++] = 0x30;
        bytes[to++] = 0x30;
        bytes[to++] = HEX[byte >> 4] as number;
        bytes[to++] = HEX[byte & 15] as number;
      }
    }
  }
  bytes[to++] = QUOTE;
  out.length = to;
}

/** JSON in UTF-8 as it is, line breaks as blanks: see json.ts. */
const writeJson: ValueWriter = (buffer, start, end, out) => {
  out.reserve(end - start);
  const { bytes } = out;
  let to = out.length;
  let ascii = true;
  for (let at = start; at < end; at++) {
    const byte = buffer[at] as number;
    if (byte > 127) ascii = false;
    bytes[to++] = byte === 10 || byte === 13 ? 0x20 : byte;
  }
  if (!ascii && !isUtf8(buffer.subarray(start, end))) throw new NotText(start);
  out.length = to;
};

function writeBoolean(encode: ValueEncoder): ValueWriter {
  const yes = Buffer.from("true");
  const no = Buffer.from("false");
  return (buffer, start, end, out) => {
    const byte = end - start === 1 ? buffer[start] : 0;
    if (byte === 0x74) out.copy(yes);
    else if (byte === 0x66) out.copy(no);
    else encode(buffer, start, end);
  };
}

/** `-12`, `0`, `3.50`: everything else by its encoder. */
function writeNumber(encode: ValueEncoder): ValueWriter {
  const other = encodedWriter(encode);
  return (buffer, start, end, out) => {
    out.reserve(end - start);
    const { bytes } = out;
    let to = out.length;
    let at = start;
    if (buffer[at] === 0x2d && at < end) bytes[to++] = buffer[at++] as number;
    const first = at;
    while (at < end && isDigit(buffer[at] as number)) bytes[to++] = buffer[at++] as number;
    const digits = at - first;
    let plain = digits > 0 && (digits === 1 || buffer[first] !== 0x30);
    if (plain && at < end && buffer[at] === 0x2e) {
      bytes[to++] = buffer[at++] as number;
      const fraction = at;
      while (at < end && isDigit(buffer[at] as number)) bytes[to++] = buffer[at++] as number;
      plain = at > fraction;
    }
    if (plain && at === end) out.length = to;
    else other(buffer, start, end, out);
  };
}

/** `2026-11-23 10:15:30.123456` with `+00` behind it where it is zoned; everything else by its encoder. */
function writeTimestamp(encode: ValueEncoder, zoned: boolean): ValueWriter {
  const other = encodedWriter(encode);
  const zone = zoned ? 3 : 0;
  return (buffer, start, end, out) => {
    const stop = end - zone;
    if (!isTimestamp(buffer, start, stop) || (zoned && !isUtc(buffer, stop))) {
      other(buffer, start, end, out);
      return;
    }
    out.reserve(end - start + 2);
    const { bytes } = out;
    let to = out.length;
    bytes[to++] = QUOTE;
    for (let at = start; at < stop; at++) bytes[to++] = buffer[at] as number;
    bytes[out.length + 11] = 0x54;
    if (zoned) bytes[to++] = 0x5a;
    bytes[to++] = QUOTE;
    out.length = to;
  };
}

/** Of a year of four digits, without BC. */
function isTimestamp(buffer: Buffer, start: number, end: number): boolean {
  const length = end - start;
  if (length < 19 || length === 20 || length > 26) return false;
  for (let i = 0; i < length; i++) {
    const byte = buffer[start + i] as number;
    const expected = i < 20 ? (TIMESTAMP[i] as number) : 0;
    if (expected === 0 ? !isDigit(byte) : byte !== expected) return false;
  }
  return true;
}

/** Characters by their place; 0: a digit. */
const TIMESTAMP = Buffer.from("0000-00-00 00:00:00.").map((byte) => (byte === 0x30 ? 0 : byte));

function isUtc(buffer: Buffer, at: number): boolean {
  return buffer[at] === 0x2b && buffer[at + 1] === 0x30 && buffer[at + 2] === 0x30;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}
