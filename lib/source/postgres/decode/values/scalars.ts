import { type ValueEncoder, ValueMismatch } from "./encoder.ts";
import { quote } from "./text.ts";

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]\d+)?$/;
const NOT_FINITE = /^(?:NaN|-?Infinity)$/;

/** `t`, `f` → `true`, `false`. https://www.postgresql.org/docs/current/datatype-boolean.html */
export const encodeBoolean: ValueEncoder = (buffer, start, end) => {
  if (end - start === 1) {
    if (buffer[start] === 0x74) return "true";
    if (buffer[start] === 0x66) return "false";
  }
  throw new ValueMismatch("t or f");
};

/**
 * Numbers that JSON's readers hold exactly: int2, int4, oid, float4, float8. The text PostgreSQL prints is JSON's
 * own form but for `NaN` and the infinities, which become strings.
 * https://www.postgresql.org/docs/current/datatype-numeric.html
 */
export const encodeNumber: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (NUMBER.test(text)) return text;
  if (NOT_FINITE.test(text)) return `"${text}"`;
  throw new ValueMismatch("a number, NaN, Infinity or -Infinity");
};

/**
 * `\x` and hexadecimal digits → base64.
 * https://www.postgresql.org/docs/current/datatype-binary.html#DATATYPE-BINARY-BYTEA-HEX-FORMAT
 */
export const encodeBytea: ValueEncoder = (buffer, start, end) => {
  if (end - start >= 2 && buffer[start] === 0x5c && buffer[start + 1] === 0x78) {
    const bytes = Buffer.from(buffer.toString("latin1", start + 2, end), "hex");
    // Buffer stops at the first digit that is none instead of refusing it.
    if (bytes.length * 2 === end - start - 2) return `"${bytes.toString("base64")}"`;
  }
  throw new ValueMismatch("\\x and hexadecimal digits (bytea_output = hex)");
};

/**
 * The type `"char"`: one byte, or nothing for byte 0. PostgreSQL 15 and newer print a byte above 127 as `\` and
 * three octal digits, 14 as it is, which need not be text: both come out as the former.
 * https://www.postgresql.org/docs/current/datatype-character.html#DATATYPE-CHARACTER-SPECIAL-TABLE
 */
export const charText: ValueEncoder = (buffer, start, end) => {
  const byte = buffer[start];
  if (end - start === 1 && byte !== undefined && byte > 127) return `\\${byte.toString(8)}`;
  return buffer.toString("latin1", start, end);
};

/** `"char"`: its one byte → a JSON string. */
export const encodeChar: ValueEncoder = (buffer, start, end) => quote(charText(buffer, start, end));

/** int2vector and oidvector: numbers with blanks between → a JSON array. */
export const encodeVector: ValueEncoder = (buffer, start, end) => {
  const text = buffer.toString("latin1", start, end);
  if (text !== "" && !/^-?\d+(?: -?\d+)*$/.test(text))
    throw new ValueMismatch("integers with blanks between");
  return `[${text.replaceAll(" ", ",")}]`;
};
