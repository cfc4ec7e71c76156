import type { ChangeEventJson, WireRow } from "../change/event.ts";
import { formatTable } from "../change/table-pattern.ts";
import { isSame, showMessage, showValue } from "./pretty-line.ts";

/**
 * A change as what became of a row: `public.orders 17  status: placed → paid`. A `?` stands for an old value that the log does
 * not hold, which may be the same as the new one: without REPLICA IDENTITY FULL.
 */
export function changedLine(event: ChangeEventJson): string {
  const { op, before, after, source } = event;
  if (op === "m") return `message ${showMessage(event)}`;
  const name = formatTable(source);
  if (op === "t") return `${name}  truncated`;
  const row = after ?? before ?? {};
  const key = source.key.map((column) => showValue(row[column])).join(",");
  const rest = Object.keys(row).filter((column) => !source.key.includes(column));
  const facts = [...detail(event, rest), ...untold(event)];
  return `${name} ${key || "(no key)"}  ${facts.join(", ")}`;
}

/** Returns true if an update tells nothing of what was before. */
export function hidesOldValues({ op, before }: ChangeEventJson): boolean {
  return op === "u" && before === null;
}

function detail({ op, before, after, unchanged = [] }: ChangeEventJson, rest: readonly string[]): string[] {
  if (op === "d") return ["deleted", ...valuesOf(before ?? {}, rest)];
  if (op !== "u") return [op === "r" ? "is there" : "created", ...valuesOf(after ?? {}, rest)];
  const differ = rest.flatMap((column) => {
    const now = showValue(after?.[column]);
    if (!before || !Object.hasOwn(before, column)) return [`${column}: ? → ${now}`];
    const old = showValue(before[column]);
    return isSame(before[column], after?.[column]) ? [] : [`${column}: ${old} → ${now}`];
  });
  if (differ.length > 0 || unchanged.length > 0) return differ;
  return ["no value changed"];
}

function valuesOf(row: WireRow, columns: readonly string[]): string[] {
  return columns.map((column) => `${column}: ${showValue(row[column])}`);
}

/** Columns that are not in the event. */
function untold({ unchanged = [], omitted = [], source, op }: ChangeEventJson): string[] {
  const { keyChange } = source;
  return [
    ...unchanged.map((column) => `${column}: ${op === "u" ? "unchanged" : "not in the log"}`),
    ...omitted.map((column) => `${column}: left out`),
    ...(keyChange && op === "d" ? [`key becomes ${keyOf(keyChange.to)}`] : []),
    ...(keyChange && op === "c" ? [`key was ${keyOf(keyChange.from)}`] : []),
  ];
}

function keyOf(key: WireRow): string {
  return Object.values(key).map(showValue).join(",");
}
