import type { SourceChange } from "../change/change-stream.ts";
import type { JsonNullPath } from "../change/event.ts";
import { type JsonMember, jsonMembers } from "../change/json-members.ts";
import type { OversizeChangeError } from "./stream-errors.ts";

/** Lists of what stands in the rows. */
const JSON_NULLS = ["jsonNull", "jsonNullBefore"];

/**
 * The change without its largest values, so that it fits: for `stream.oversize: "omit"`. The columns left out are
 * listed in the event's `omitted`, and stand in neither `before` nor `after`. Columns of the key always stay.
 *
 * @throws the change's own error where that does not help: a logical message, a key as large as that.
 */
export function omitColumns(change: SourceChange, error: OversizeChangeError): SourceChange {
  const { topic, partition, position, table, json } = change;
  const members = jsonMembers(json, 0, "source");
  const rows = members.filter(
    ({ name, valueStart }) => (name === "before" || name === "after") && json[valueStart] === "{",
  );
  const columns = new Map<string, number>();
  for (const row of rows) {
    for (const column of jsonMembers(json, row.valueStart)) {
      const bytes = Buffer.byteLength(json.slice(column.start, column.end));
      columns.set(column.name, (columns.get(column.name) ?? 0) + bytes);
    }
  }
  for (const member of members.filter(({ name }) => JSON_NULLS.includes(name))) {
    for (const path of jsonNulls(json, member)) {
      const column = columnOf(path);
      columns.set(column, (columns.get(column) ?? 0) + Buffer.byteLength(JSON.stringify(path)) + 1);
    }
  }
  const omitted = chooseOmitted(columns, keyColumns(json, members), error);
  const parts = members.map((member) => {
    const { name, start, valueStart, end } = member;
    if (name === "source") return json.slice(start);
    if (JSON_NULLS.includes(name)) return `"${name}":${jsonNullsWithout(json, member, omitted)}`;
    const kept = rows.includes(member)
      ? `"${name}":${without(json, valueStart, omitted)}`
      : json.slice(start, end);
    return name === "after" ? `${kept},"omitted":${JSON.stringify([...omitted])}` : kept;
  });
  return { kind: "change", topic, partition, position, table, json: `{${parts.join(",")}` };
}

/** The largest columns first, until the record fits. */
function chooseOmitted(
  columns: ReadonlyMap<string, number>,
  key: ReadonlySet<string>,
  error: OversizeChangeError,
): ReadonlySet<string> {
  const omitted = new Set<string>();
  let bytes = error.bytes + Buffer.byteLength(',"omitted":[]');
  const largest = [...columns].filter(([name]) => !key.has(name)).sort(([, a], [, b]) => b - a);
  for (const [name, size] of largest) {
    if (bytes <= error.maxRecordBytes) break;
    omitted.add(name);
    bytes += Buffer.byteLength(JSON.stringify(name)) + 1 - size;
  }
  if (bytes > error.maxRecordBytes) throw error;
  return omitted;
}

function jsonNulls(json: string, { valueStart, end }: JsonMember): readonly JsonNullPath[] {
  return JSON.parse(json.slice(valueStart, end));
}

function columnOf(path: JsonNullPath): string {
  return typeof path === "string" ? path : path[0];
}

function jsonNullsWithout(json: string, member: JsonMember, omitted: ReadonlySet<string>): string {
  return JSON.stringify(jsonNulls(json, member).filter((path) => !omitted.has(columnOf(path))));
}

/** The names in the event's `source.key`. */
function keyColumns(json: string, members: readonly JsonMember[]): ReadonlySet<string> {
  const source = members.at(-1) as JsonMember;
  // The event is open inside `source`: closed here for reading.
  const { key } = JSON.parse(`${json.slice(source.valueStart)}}`) as { key?: readonly string[] };
  return new Set(key);
}

/** The row's text without these columns. */
function without(json: string, at: number, omitted: ReadonlySet<string>): string {
  const kept = jsonMembers(json, at).filter(({ name }) => !omitted.has(name));
  return `{${kept.map(({ start, end }) => json.slice(start, end)).join(",")}}`;
}
