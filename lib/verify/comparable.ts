import { hash } from "node:crypto";
import { printJson } from "../change/json-print.ts";
import { JSON_NULL } from "../consume/verifiable-sink.ts";
import { canonicalText } from "../source/postgres/key-text.ts";
import type { BuiltinForm } from "../source/postgres/values/builtin-types.ts";

/** How a JSON null is told from NULL inside an array: as what no array of PostgreSQL holds. */
const NULL_IN_ARRAY = { "\0": "null" };

/** A column as two sides are compared by it. */
export interface ComparedColumn {
  readonly name: string;
  readonly form: BuiltinForm;
  /** Whether `JSON_NULL` is another value than null; otherwise it is taken for null. */
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

/** Columns in which two rows differ. */
export function differingColumns(
  columns: readonly ComparedColumn[],
  a: Readonly<Record<string, unknown>>,
  b: Readonly<Record<string, unknown>>,
): string[] {
  return columns
    .filter((column) => valueText(column, a[column.name]) !== valueText(column, b[column.name]))
    .map(({ name }) => name);
}

function valueText({ form, jsonNull = false }: ComparedColumn, value: unknown): string {
  const absent = value === null || value === undefined || (value === JSON_NULL && !jsonNull);
  return absent ? "" : `=${presentText(form, value, jsonNull)}`;
}

function presentText(form: BuiltinForm, value: unknown, jsonNull: boolean): string {
  // A text that reads null has its quotes.
  if (value === JSON_NULL) return "null";
  switch (form) {
    case "number":
    case "float":
      // NaN and infinities are words on both sides.
      return typeof value === "object" ? String(value) : String(Number(value));
    case "numeric":
    case "bpchar":
      return canonicalText(form, String(value));
    case "boolean":
      return /^t/i.test(String(value)) ? "true" : "false";
    case "bytea":
      return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : String(value);
    case "timestamp":
    case "timestamptz":
      return timeText(value instanceof Date ? value.toISOString() : String(value));
    case "json":
      return jsonText(value, jsonNull);
    default:
      return typeof value === "object" ? jsonText(value, jsonNull) : String(value);
  }
}

/** `2026-11-23 10:15:30.100+00` → `2026-11-23T10:15:30.1`: both sides are in UTC. */
function timeText(text: string): string {
  return text
    .replace(/ (?=\d)/, "T")
    .replace(/(?:Z|\+00(?::?00)?)(?= BC$|$)/, "")
    .replace(/(\.\d*?)0+(?= BC$|$)/, "$1")
    .replace(/\.(?= BC$|$)/, "");
}

/** Members in one order; numbers by their digits, as exact JSON has them. */
function jsonText(value: unknown, jsonNull: boolean): string {
  const leaf = (inner: unknown) => {
    if (inner === JSON_NULL) return jsonNull ? NULL_IN_ARRAY : null;
    return typeof inner === "number" ? String(inner) : inner;
  };
  return printJson(value, { sorted: true, leaf });
}
