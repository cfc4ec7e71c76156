import type { ChangeEventJson, WireRow } from "../change/event.ts";
import { jsonMembers } from "../change/json-members.ts";

/**
 * Reads an event to be shown to people. Values of json columns, numbers and arrays are texts, as they stand in the event: every digit
 * counts, and a document may be nested to any depth.
 */
export function readableEvent(json: string): ChangeEventJson {
  const event = JSON.parse(json) as ChangeEventJson;
  const rows = new Map(jsonMembers(json, 0, "source").map(({ name, valueStart }) => [name, valueStart]));
  const readable = (row: WireRow | null, at: number | undefined): WireRow | null => {
    if (row === null || at === undefined) return row;
    const texts = jsonMembers(json, at).map(({ name, valueStart, end }) => {
      const value = row[name];
      const isText = typeof value === "string" || typeof value === "boolean" || value === null;
      return [name, isText ? value : json.slice(valueStart, end)] as const;
    });
    return Object.fromEntries(texts);
  };
  return {
    ...event,
    before: readable(event.before, rows.get("before")),
    after: readable(event.after, rows.get("after")),
  };
}
