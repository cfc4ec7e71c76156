import { describe, expect, it } from "vitest";
import type { ChangeEventJson, JsonNullPath } from "../../../lib/change/event.ts";
import { HandledEvent, wireRows } from "../../../lib/consume/run/event.ts";
import { parseExactJson } from "../../../lib/consume/run/json.ts";
import { at, type Change, eventJson, TOPIC } from "./records.ts";

function eventOf(change: Partial<Change>): HandledEvent {
  const wire = parseExactJson(eventJson({ at: 7, after: null, ...change })) as ChangeEventJson;
  return new HandledEvent(wire, { topic: TOPIC, partition: 3 }, at(7), wireRows(wire));
}

describe("an event", () => {
  it("tells where it stands", () => {
    const event = eventOf({});
    expect(event).toMatchObject({
      id: at(7),
      position: at(7),
      op: "c",
      operation: "create",
      topic: TOPIC,
      partition: 3,
    });
    expect(event).toMatchObject({ schema: "public", table: "orders", key: { id: "7" }, unchanged: [] });
    expect(event.committedAt.getTime()).toBe(event.source.ts_ms);
  });

  it("keeps its facts in a copy", () => {
    const event = eventOf({ op: "u", before: { id: "7", a: "x" }, row: { id: "7", a: "y" } });
    const facts = { id: at(7), position: at(7), op: "u", operation: "update", topic: TOPIC, partition: 3 };
    const rows = {
      schema: "public",
      table: "orders",
      key: { id: "7" },
      row: { id: "7", a: "y" },
      changed: ["a"],
    };
    for (const copy of [{ ...event }, structuredClone(event), Object.assign({}, event)]) {
      expect(copy).toMatchObject({ ...facts, ...rows, unchanged: [], omitted: [], source: event.source });
      expect(copy.committedAt.getTime()).toBe(event.source.ts_ms);
    }
    expect({ ...eventOf({ op: "m" }) }.message?.content).toEqual(Buffer.from("hi"));
  });

  it("has as row what is after, and for deletes what was before", () => {
    expect(eventOf({ row: { id: "1" } }).row).toEqual({ id: "1" });
    expect(eventOf({ op: "d", row: { id: "1" } })).toMatchObject({
      after: null,
      row: { id: "1" },
      key: { id: "1" },
    });
    expect(eventOf({ op: "t" })).toMatchObject({ row: null, key: {}, changed: [] });
  });

  it("has the message's bytes", () => {
    const { message, row } = eventOf({ op: "m" });
    expect(row).toBeNull();
    expect(message).toMatchObject({ prefix: "app", transactional: true });
    expect(Buffer.from(message?.content ?? []).toString()).toBe("hi");
  });

  it.each<[string, Partial<Change>, string[]]>([
    ["create: all", { row: { id: "1", a: 1 } }, ["id", "a"]],
    ["delete: all", { op: "d", row: { id: "1", a: 1 } }, ["id", "a"]],
    [
      "update, old row whole: those that differ",
      { op: "u", row: { id: "1", a: 1, b: { x: [1] } }, before: { id: "1", a: 2, b: { x: [1] } } },
      ["a"],
    ],
    [
      "update, nothing of the old row: all but the key",
      { op: "u", row: { id: "1", a: 1, b: 2 } },
      ["a", "b"],
    ],
    ["update: never what did not travel", { op: "u", row: { id: "1", a: 1 }, unchanged: ["b"] }, ["a"]],
    [
      "update: json by content",
      { op: "u", row: { id: "1", j: { a: 1, b: null } }, before: { id: "1", j: { b: null, a: 1 } } },
      [],
    ],
    [
      "update: an added json key",
      { op: "u", row: { id: "1", j: { a: 1, __proto__x: 1 } }, before: { id: "1", j: { a: 1 } } },
      ["j"],
    ],
  ])("knows the changed columns: %s", (_what, change, changed) => {
    expect(eventOf(change).changed).toEqual(changed);
  });

  it.each([
    ["u", { id: "1", a: 1 }, ["a", "b"]],
    ["c", { id: "1" }, ["id", "b"]],
    ["d", { id: "1" }, ["id", "b"]],
  ] as const)("counts among the changed columns those that were omitted: %s", (op, row, changed) => {
    const wire = parseExactJson(eventJson({ at: 7, after: null, op, row })) as ChangeEventJson;
    const event = new HandledEvent(
      { ...wire, omitted: ["b"] },
      { topic: TOPIC, partition: 3 },
      at(7),
      wireRows(wire),
    );
    expect(event).toMatchObject({ changed, omitted: ["b"] });
  });

  it("tells a JSON null from NULL, and knows a change from one to the other", () => {
    const row = { id: "1", j: null, tags: [null, null] };
    const same = eventOf({ op: "u", row, before: row });
    expect(same).toMatchObject({ jsonNull: [], jsonNullBefore: [], changed: [] });
    const paths: JsonNullPath[] = ["j", ["tags", 1]];
    const both = { jsonNull: paths, jsonNullBefore: paths };
    expect(eventOf({ op: "u", row, before: row, more: both })).toMatchObject({ ...both, changed: [] });
    const nulled = { jsonNull: [["tags", 0]], jsonNullBefore: [["tags", 1]] } as const;
    expect(eventOf({ op: "u", row, before: row, more: nulled }).changed).toEqual(["tags"]);
    const gone = { jsonNullBefore: ["j"] };
    expect(eventOf({ op: "u", row, before: row, more: gone }).changed).toEqual(["j"]);
  });

  it("keeps a column named __proto__", () => {
    const event = eventOf({
      op: "u",
      rowJson: '{"id":"1","__proto__":9007199254740993}',
      source: { key: ["__proto__"] },
    });
    expect(Object.entries(event.row as object)).toEqual([
      ["id", "1"],
      ["__proto__", 9007199254740993n],
    ]);
    expect(Object.entries(event.key)).toEqual([["__proto__", 9007199254740993n]]);
    expect(event.changed).toEqual(["id"]);
  });

  it("gives an update's old row only when it is whole", () => {
    expect(eventOf({ op: "u", row: { id: "1", a: 1 }, before: { id: "1" } }).before).toBeNull();
    expect(eventOf({ op: "u", row: { id: "1" }, unchanged: ["a"], before: { id: "1" } }).before).toBeNull();
    const whole = eventOf({ op: "u", row: { id: "1" }, unchanged: ["a"], before: { id: "1", a: "x" } });
    expect(whole.before).toEqual({ id: "1", a: "x" });
  });
});
