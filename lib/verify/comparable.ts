import { hash } from "node:crypto";
import { printJson } from "../change/json-print.ts";
import { JSON_NULL } from "../consume/api/verifiable-sink.ts";
import { canonicalNumber, parseExactJson } from "../consume/run/json.ts";
import { canonicalText } from "../source/postgres/decode/key-text.ts";
import type { BuiltinForm } from "../source/postgres/decode/values/builtin-types.ts";
import { dateText, intervalText, timestampText, timestampZonedText } from "./printed-time.ts";

/** A JSON null inside an array, told from NULL: no array of PostgreSQL holds this. */
const NULL_IN_ARRAY = { "\0": "null" };

/** A column as two sides are compared by it. */
export interface ComparedColumn {
  readonly name: string;
  readonly form: BuiltinForm;
  /** Of an array: how its elements are compared. */
  readonly elements?: BuiltinForm | undefined;
  /** Of what events do not carry as a text: a value from how PostgreSQL prints it. Gives back what is no such text. */
  readonly read?: ((text: string) => unknown) | undefined;
  /** True if `JSON_NULL` is another value than null; otherwise it is taken for null. */
  readonly jsonNull?: boolean;
}

/** 64 bits of a row, in halves. */
export interface Digest {
  readonly high: number;
  readonly low: number;
}

/**
 * The texts of a row's columns, joined: equal where PostgreSQL holds them equal, however a sink prints them. A text
 * that is null differs from every other.
 */
export function comparableText(
  columns: readonly ComparedColumn[],
  row: Readonly<Record<string, unknown>>,
): string {
  return columns.map((column) => valueText(column, row[column.name])).join("\0");
}

/** Of `comparableText`. */
export function digestOf(text: string): Digest {
  const bytes = hash("sha1", text, "buffer");
  return { high: bytes.readUInt32LE(0), low: bytes.readUInt32LE(4) };
}

/** Columns in which a row of the source and what the sink holds of it differ. */
export function differingColumns(
  columns: readonly ComparedColumn[],
  source: Readonly<Record<string, unknown>>,
  sink: Readonly<Record<string, unknown>>,
): string[] {
  return columns
    .filter((column) => differ(column, source[column.name], sink[column.name]))
    .map(({ name }) => name);
}

/**
 * A text that a sink gives for JSON may be a print of it, or the string as an event carries it: `1` is 1, and `"1"`. It
 * is right where one of them is.
 */
function differ(column: ComparedColumn, source: unknown, sink: unknown): boolean {
  const text = valueText(column, source);
  if (text === valueText(column, sink)) return false;
  if (column.form !== "json" || typeof sink !== "string") return true;
  if (sink === "null" && source === JSON_NULL && !column.jsonNull) return false;
  return text !== `=${JSON.stringify(sink)}`;
}

function valueText({ form, jsonNull = false, elements, read }: ComparedColumn, given: unknown): string {
  const value = read !== undefined && typeof given === "string" ? read(given) : given;
  const absent = value === null || value === undefined || (value === JSON_NULL && !jsonNull);
  if (absent) return "";
  if (form !== "json" && Array.isArray(value)) return `=${arrayText(elements, value, jsonNull)}`;
  return `=${presentText(form, value, jsonNull)}`;
}

/** As PostgreSQL prints arrays, with each element by its form; where that is not known, texts are told from numbers. */
function arrayText(
  form: BuiltinForm | undefined,
  array: readonly unknown[],
  jsonNull: boolean,
  depth = 1,
): string {
  // JSON may hold arrays of any depth; PostgreSQL's own have six at most.
  if (form === "json" || depth > 6) return jsonText(array, jsonNull);
  const texts = array.map((value) => {
    if (Array.isArray(value)) return arrayText(form, value, jsonNull, depth + 1);
    if (value === null || value === undefined) return "null";
    if (form !== undefined && value !== JSON_NULL) return JSON.stringify(presentText(form, value, jsonNull));
    return jsonText(value, jsonNull);
  });
  return `{${texts.join(",")}}`;
}

function presentText(form: BuiltinForm, value: unknown, jsonNull: boolean): string {
  // A text that reads null has its quotes.
  if (value === JSON_NULL) return "null";
  switch (form) {
    case "number":
    case "float":
      return numberText(value);
    case "numeric":
      return typeof value === "object" ? jsonText(value, jsonNull) : canonicalNumber(String(value));
    case "bpchar":
      return canonicalText(form, String(value));
    case "boolean":
      return booleanText(String(value));
    case "bytea":
      return byteaText(value);
    case "date":
      return dateText(value);
    case "timestamp":
      return timestampText(value);
    case "timestamptz":
      return timestampZonedText(value);
    case "interval":
      return intervalText(value);
    case "json":
      return typeof value === "string" ? printedJson(value, jsonNull) : jsonText(value, jsonNull);
    default:
      return typeof value === "object" ? jsonText(value, jsonNull) : String(value);
  }
}

/** NaN and infinities are words on both sides. What is no number stays what it is: an empty text is not 0. */
function numberText(value: unknown): string {
  if (typeof value === "number") return String(value + 0);
  const text = String(value);
  return /^[+-]?(?:\d|\.\d)[\d.]*(?:[eE][+-]?\d+)?$/.test(text) ? String(Number(text) + 0) : text;
}

function booleanText(text: string): string {
  if (text === "t") return "true";
  return text === "f" ? "false" : text;
}

/** Base64, as events have it. No base64 begins as the hexadecimal print does. */
function byteaText(value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  const text = String(value);
  return /^\\x(?:[0-9a-fA-F]{2})*$/.test(text) ? Buffer.from(text.slice(2), "hex").toString("base64") : text;
}

/** Of a text for a JSON column: of what it reads as, else of the string. `null` is a string: a JSON null has its own sign. */
function printedJson(text: string, jsonNull: boolean): string {
  if (text === "null") return jsonText(text, jsonNull);
  try {
    return jsonText(parseExactJson(text), jsonNull);
  } catch {
    return jsonText(text, jsonNull);
  }
}

/** Members in one order. A number is no text of its digits, and is one number however a driver holds it. */
function jsonText(value: unknown, jsonNull: boolean): string {
  const leaf = (inner: unknown) => {
    if (inner === JSON_NULL) return jsonNull ? NULL_IN_ARRAY : null;
    if (typeof inner === "bigint") return Number.isSafeInteger(Number(inner)) ? Number(inner) : wide(inner);
    const wideNumber = typeof inner === "number" && Number.isInteger(inner) && !Number.isSafeInteger(inner);
    return wideNumber ? wide(BigInt(inner)) : inner;
  };
  return printJson(value, { sorted: true, leaf });
}

/** No JSON of PostgreSQL holds such a name. */
function wide(integer: bigint): object {
  return { "\0": integer.toString() };
}
