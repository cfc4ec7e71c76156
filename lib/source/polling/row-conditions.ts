import type { RowKey } from "../known-keys.ts";
import type { PollingSource } from "./definition.ts";
import type { BatchBounds } from "./place.ts";
import type { PolledColumn, PolledTable } from "./polled-table.ts";

/*
 * Conditions on rows of a polled table, as SQL.
 */

const UNDER = 1n << 32n;

/**
 * Row versions of transactions in `[from, to)`, or of all below `to`: by 32 bits of their ids, which go round. Of rows that are
 * older than one round, a few look as if they were new.
 */
export function ended(from: string | null, to: string): string[] {
  if (from !== null) return [`${age(from)} < ${BigInt(to) - BigInt(from)}`];
  return [`${age(to)} >= pg_snapshot_xmax(pg_current_snapshot())::text::int8 - ${to}`];
}

/** SQL for the distance of a row's transaction behind one, round the 32 bits. */
export function age(xid: string): string {
  return `(xmin::text::int8 - ${BigInt(xid) % UNDER} + ${UNDER}) % ${UNDER}`;
}

/** Conditions on the index of its column that newer rows meet; none in a full look. */
export function newer(
  { column, grows }: PolledTable,
  { from, full, low, lowValue }: Pick<BatchBounds, "from" | "full" | "low" | "lowValue">,
  { skewSeconds, timeZone }: Pick<PollingSource, "skewSeconds" | "timeZone">,
): string[] {
  if (full || from === null) return [];
  if (grows === "number")
    return lowValue === null ? [] : [`${column.quoted} > ${literal(lowValue)}::${column.type}`];
  if (low === null) return [];
  const time = `to_timestamp(${low / 1000 - skewSeconds})`;
  const zoned = column.type.includes("without") ? `(${time} AT TIME ZONE ${literal(timeZone)})` : time;
  return [`${column.quoted} >= ${zoned}`];
}

/** Behind `last` and up to `upTo`, in the order of (column, key). */
export function range(
  table: PolledTable,
  last: readonly string[] | null,
  upTo: readonly string[] | null,
): string[] {
  const columns = [table.column, ...table.key];
  return [
    ...(last ? [`${names(columns)} > ${tuple(columns, last)}`] : []),
    ...(upTo ? [`${names(columns)} <= ${tuple(columns, upTo)}`] : []),
  ];
}

/** With one of these keys. */
export function withKeys({ key }: PolledTable, keys: readonly (readonly string[])[]): string {
  return `${names(key)} IN (${keys.map((values) => tuple(key, values)).join(", ")})`;
}

/** Behind a key, in the order of keys. */
export function behindKey({ key }: PolledTable, last: RowKey): string {
  return `${names(key)} > ${tuple(key, last)}`;
}

/** Values of columns, in brackets. */
export function tuple(columns: readonly PolledColumn[], values: readonly string[]): string {
  return `(${values.map((value, i) => `${literal(value)}::${columns[i]?.type}`).join(", ")})`;
}

/** Columns, apart by commas. */
export function list(columns: readonly PolledColumn[]): string {
  return columns.map(({ quoted }) => quoted).join(", ");
}

function names(columns: readonly PolledColumn[]): string {
  return `(${list(columns)})`;
}

/** An array of texts that can be cast back. */
export function texts(columns: readonly PolledColumn[]): string {
  return `ARRAY[${columns.map(({ quoted }) => `${quoted}::text`).join(", ")}]`;
}

/** A text as an SQL literal. */
function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}
