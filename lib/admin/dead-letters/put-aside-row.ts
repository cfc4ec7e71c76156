import type { PutAsideLetter } from "./letter.ts";

/** A value of a row as the server sent it: its text, `null`, or `unchanged` where a large one did not travel. */
export type RawValue = { readonly text: string } | "null" | "unchanged";

/** A row change as the server sent it, decoded no further: what cannot be decoded is why it was put aside. */
export interface RawChange {
  readonly op: "insert" | "update" | "delete";
  readonly before: Readonly<Record<string, RawValue>> | undefined;
  readonly after: Readonly<Record<string, RawValue>> | undefined;
}

const OPERATIONS = { I: "insert", U: "update", D: "delete" } as const;

/**
 * Reads the server's message of a change that was put aside, with the columns that its dead letter names. Bytes that are no UTF-8 are shown as
 * `\xe9`. Undefined where the message is not as expected.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export function readRawChange(message: Buffer, { relation }: PutAsideLetter): RawChange | undefined {
  try {
    const op = OPERATIONS[String.fromCharCode(message[0] ?? 0) as keyof typeof OPERATIONS];
    if (op === undefined) return undefined;
    const columns = relation.columns.map(({ name }) => name);
    const rows: Partial<Record<"before" | "after", Record<string, RawValue>>> = {};
    // Behind the type and the relation's OID.
    let at = 5;
    while (at < message.length) {
      const kind = String.fromCharCode(message.readUInt8(at++));
      const row = readRow(message, at, columns);
      rows[kind === "N" ? "after" : "before"] = row.values;
      at = row.end;
    }
    return { op, before: rows.before, after: rows.after };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function readRow(
  message: Buffer,
  from: number,
  columns: readonly string[],
): { readonly values: Record<string, RawValue>; readonly end: number } {
  const count = message.readInt16BE(from);
  let at = from + 2;
  // A column may have any name, `__proto__` too.
  const values: Record<string, RawValue> = Object.create(null);
  for (let i = 0; i < count; i++) {
    const name = columns[i] ?? `column ${i + 1}`;
    const kind = String.fromCharCode(message.readUInt8(at++));
    if (kind === "n" || kind === "u") {
      values[name] = kind === "n" ? "null" : "unchanged";
      continue;
    }
    const length = message.readInt32BE(at);
    at += 4;
    if (length < 0 || at + length > message.length) throw new RangeError("beyond the message");
    values[name] = { text: textOf(message.subarray(at, at + length)) };
    at += length;
  }
  return { values, end: at };
}

/** The text, with bytes that are none as `\xe9`. */
function textOf(bytes: Buffer): string {
  const text = bytes.toString("utf8");
  if (Buffer.from(text).equals(bytes)) return text;
  return Array.from(bytes, (byte) =>
    byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}
