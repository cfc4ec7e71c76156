import { isUtf8 } from "node:buffer";
import { type ServerEncoding, textDecode } from "./charset.ts";
import { NotText, type ValueEncoder } from "./encoder.ts";

/**
 * Encoding of text: UTF-8; latin1 by choice for a database without an encoding (SQL_ASCII), whose names are read as
 * UTF-8 all the same; or the encoding of the database.
 */
export type TextEncoding = "utf-8" | "latin1" | ServerEncoding;

/** Reads text in one encoding. */
export interface TextForm {
  readonly encoding: TextEncoding;
  /** The text of `buffer[start, end)`. @throws NotText rather than to replace a character. */
  readonly decode: (buffer: Buffer, start: number, end: number) => string;
  /** The same as a JSON string. */
  readonly json: ValueEncoder;
}

const NOT_ASCII = /[\u0080-\u00ff]/;
/** Characters that a JSON string cannot hold as they are. https://www.rfc-editor.org/rfc/rfc8259#section-7 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is to be escaped
const TO_ESCAPE = /["\\\u0000-\u001f]/;

/** The reader for an encoding. */
export function textForm(encoding: TextEncoding): TextForm {
  if (encoding === "utf-8") return UTF8;
  if (encoding === "latin1") return LATIN1;
  const decode = textDecode(encoding);
  return { encoding, decode, json: (b, start, end) => quote(decode(b, start, end)) };
}

/** The reader for names. What the catalog says of them over our other sessions comes as UTF-8. */
export function nameForm(encoding: TextEncoding): TextForm {
  return textForm(encoding === "latin1" ? "utf-8" : encoding);
}

const UTF8: TextForm = {
  encoding: "utf-8",
  decode: decodeUtf8,
  json: (b, start, end) => quote(decodeUtf8(b, start, end)),
};
const LATIN1: TextForm = {
  encoding: "latin1",
  decode: decodeLatin1,
  json: (b, start, end) => quote(decodeLatin1(b, start, end)),
};

/** Most text is ASCII, which latin1 reads several times faster than UTF-8. */
function decodeUtf8(buffer: Buffer, start: number, end: number): string {
  const text = buffer.toString("latin1", start, end);
  if (!NOT_ASCII.test(text)) return text;
  if (!isUtf8(buffer.subarray(start, end))) throw new NotText(start);
  return buffer.toString("utf8", start, end);
}

function decodeLatin1(buffer: Buffer, start: number, end: number): string {
  return buffer.toString("latin1", start, end);
}

/** A JSON string of a text. */
export function quote(text: string): string {
  return TO_ESCAPE.test(text) ? JSON.stringify(text) : `"${text}"`;
}
