import type { ChangeEventJson, WireRow, WireValue } from "../change/event.ts";
import { printJson } from "../change/json-print.ts";
import { formatTable } from "../change/table-pattern.ts";

const NAMES = { c: "insert", u: "update", d: "delete", r: "read", t: "truncate", m: "message" } as const;
const LONGEST_VALUE = 60;

/** A change event as one short line for people: time, operation, table, key and what changed. */
export function prettyLine(event: ChangeEventJson): string {
  const { source } = event;
  const time = new Date(source.ts_ms).toISOString().slice(11, 23);
  const what =
    event.op === "m"
      ? printable(event.message?.prefix ?? "")
      : formatTable({ schema: source.schema, table: source.table });
  return `${time} ${NAMES[event.op].padEnd(8)} ${what} ${detail(event)}`.trimEnd();
}

function detail(event: ChangeEventJson): string {
  const { before, after } = event;
  if (event.op === "m") return contentOf(event);
  if (!after) return before ? columns(before) : "";
  const kept = event.unchanged?.length ? ` (unchanged: ${event.unchanged.join(", ")})` : "";
  if (event.op !== "u" || !before) return columns(after) + kept;
  const key = event.source.key.map((name) => `${name}=${showValue(after[name])}`);
  const changed = Object.keys(after)
    .filter((name) => Object.hasOwn(before, name) && !isSame(before[name], after[name]))
    .map((name) => `${name}: ${showValue(before[name])} → ${showValue(after[name])}`);
  const unseen = Object.keys(after).filter((name) => !Object.hasOwn(before, name));
  const rest = unseen.map((name) => `${name}=${showValue(after[name])}`);
  return [...key, ...changed, ...rest].join(" ") + kept;
}

/** Values are shortened: they may differ further on. */
export function isSame(a: WireValue | undefined, b: WireValue | undefined): boolean {
  return showValue(a) === showValue(b) && JSON.stringify(a) === JSON.stringify(b);
}

/** Prefix and content of a logical message. */
export function showMessage(event: ChangeEventJson): string {
  return `${printable(event.message?.prefix ?? "")}: ${contentOf(event)}`;
}

function contentOf({ message }: ChangeEventJson): string {
  return printable(Buffer.from(message?.content ?? "", "base64").toString("utf8"));
}

function columns(row: WireRow): string {
  return Object.entries(row)
    .map(([name, value]) => `${name}=${showValue(value)}`)
    .join(" ");
}

/** A value in one short line. */
export function showValue(value: WireValue | undefined): string {
  const text = typeof value === "string" ? value : value === undefined ? "" : printJson(value);
  const oneLine = printable(text);
  return oneLine.length > LONGEST_VALUE ? `${oneLine.slice(0, LONGEST_VALUE - 1)}…` : oneLine;
}

/** In one line, and without what a terminal would take for a command. */
function printable(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
