import type { ChangeEventJson, WireRow, WireValue } from "../change/event.ts";
import { printJson } from "../change/json-print.ts";
import { formatTable } from "../change/table-pattern.ts";

const NAMES = { c: "insert", u: "update", d: "delete", r: "read", t: "truncate", m: "message" } as const;
const LONGEST_VALUE = 60;

/** A change event as one short line for people: time, operation, table, key and what changed. */
export function prettyLine(json: string): string {
  const event = JSON.parse(json) as ChangeEventJson;
  const { source } = event;
  const time = new Date(source.ts_ms).toISOString().slice(11, 23);
  const what =
    event.op === "m"
      ? (event.message?.prefix ?? "")
      : formatTable({ schema: source.schema, table: source.table });
  return `${time} ${NAMES[event.op].padEnd(8)} ${what} ${detail(event)}`.trimEnd();
}

function detail(event: ChangeEventJson): string {
  const { before, after } = event;
  if (event.op === "m") return Buffer.from(event.message?.content ?? "", "base64").toString("utf8");
  if (!after) return before ? columns(before) : "";
  const kept = event.unchanged?.length ? ` (unchanged: ${event.unchanged.join(", ")})` : "";
  if (event.op !== "u" || !before) return columns(after) + kept;
  const key = event.source.key.map((name) => `${name}=${show(after[name])}`);
  const changed = Object.keys(after)
    .filter((name) => Object.hasOwn(before, name) && show(before[name]) !== show(after[name]))
    .map((name) => `${name}: ${show(before[name])} → ${show(after[name])}`);
  const unseen = Object.keys(after).filter((name) => !Object.hasOwn(before, name));
  const rest = unseen.map((name) => `${name}=${show(after[name])}`);
  return [...key, ...changed, ...rest].join(" ") + kept;
}

function columns(row: WireRow): string {
  return Object.entries(row)
    .map(([name, value]) => `${name}=${show(value)}`)
    .join(" ");
}

function show(value: WireValue | undefined): string {
  const text = typeof value === "string" ? value : value === undefined ? "" : printJson(value);
  const oneLine = text.replace(/\s+/g, " ");
  return oneLine.length > LONGEST_VALUE ? `${oneLine.slice(0, LONGEST_VALUE - 1)}…` : oneLine;
}
