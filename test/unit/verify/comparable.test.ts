import { expect, test } from "vitest";
import { JSON_NULL } from "../../../lib/consume/api/verifiable-sink.ts";
import type { BuiltinForm } from "../../../lib/source/postgres/decode/values/builtin-types.ts";
import { CHUNKS, ChunkSums } from "../../../lib/verify/chunks.ts";
import { comparableText, differingColumns, digestOf } from "../../../lib/verify/comparable.ts";

test.each<[BuiltinForm, unknown, unknown]>([
  ["number", 5, "5"],
  ["float", 1e21, "1e+21"],
  ["float", "NaN", "NaN"],
  ["numeric", "19.90", "19.9"],
  ["numeric", "100", 100],
  ["bpchar", "ab  ", "ab"],
  ["boolean", true, "t"],
  ["boolean", false, "false"],
  ["bytea", "AQI=", new Uint8Array([1, 2])],
  ["timestamptz", "2026-11-23T10:15:30.12Z", "2026-11-23 10:15:30.120000+00"],
  ["timestamptz", "2026-11-23T10:15:30Z", new Date("2026-11-23T10:15:30Z")],
  ["timestamptz", "2026-11-23T10:15:30Z", "2026-11-23T10:15:30+00:00"],
  ["timestamptz", "0044-03-15T00:00:00Z BC", "0044-03-15 00:00:00+00 BC"],
  ["timestamptz", "infinity", "infinity"],
  ["timestamp", "2026-11-23T10:15:30.1", "2026-11-23 10:15:30.1"],
  ["timestamptz", "2026-11-22T23:15:30.1Z", "2026-11-23 01:15:30.100+02"],
  ["timestamptz", "2026-11-23T10:15:30Z", "2026-11-23 04:45:30-05:30"],
  ["timestamptz", "-infinity", Number.NEGATIVE_INFINITY],
  ["date", "2026-11-23", new Date(2026, 10, 23)],
  ["interval", "P1Y2M3DT4H5M6.789S", "1 year 2 mons 3 days 04:05:06.789"],
  ["interval", "PT-0.5S", "-00:00:00.5"],
  ["interval", "P-1DT2H", "-1 days +02:00:00"],
  ["bytea", "YQ==", "\\x61"],
  ["numeric", "1000000000000000000000", 1e21],
  ["json", { b: [1, 2n], a: null }, { a: null, b: [1n, 2] }],
  ["json", { a: 10n ** 21n }, { a: 1e21 }],
  ["json", { a: [1, "x"] }, '{"a": [1, "x"]}'],
  ["json", "abc", '"abc"'],
  ["text", [1, 2], "{1,2}"],
  ["text", "17", 17],
  ["text", ["a", null], ["a", null]],
])("%s: %o and %o are the same", (form, a, b) => {
  const columns = [{ name: "x", form }];
  expect(comparableText(columns, { x: a })).toBe(comparableText(columns, { x: b }));
});

test.each<[BuiltinForm, unknown, unknown]>([
  ["json", JSON_NULL, null],
  ["json", JSON_NULL, "null"],
  ["text", [JSON_NULL], [null]],
  ["text", [[1], [JSON_NULL, null]], [[1], [null, JSON_NULL]]],
])("%s: %o and %o are the same only to a sink that does not tell a JSON null from NULL", (form, a, b) => {
  const text = (value: unknown, jsonNull: boolean) =>
    comparableText([{ name: "x", form, jsonNull }], { x: value });
  expect(text(a, true)).not.toBe(text(b, true));
  expect(text(a, true)).toBe(text(copyOf(a), true));
  if (b !== "null") expect(text(a, false)).toBe(text(b, false));
});

test("a text for JSON is right as a print and as the string itself; the source's own strings are no prints", () => {
  const columns = [{ name: "x", form: "json" as const }];
  const differs = (source: unknown, sink: unknown) =>
    differingColumns(columns, { x: source }, { x: sink }).length > 0;
  expect([differs(1, "1"), differs('"1"', "1"), differs('"1"', '"1"'), differs(JSON_NULL, "null")]).toEqual([
    false,
    false,
    false,
    false,
  ]);
  expect([differs('"1"', 1), differs(2, "1"), differs('"null"', null)]).toEqual([true, true, true]);
});

/** With its symbols, which `structuredClone` refuses. */
function copyOf(value: unknown): unknown {
  return Array.isArray(value) ? value.map(copyOf) : value;
}

test.each<[BuiltinForm, unknown, unknown]>([
  ["text", "", null],
  ["text", "1.50", "1.5"],
  ["text", "null", null],
  ["numeric", "100", "10"],
  ["numeric", "9007199254740993", "9007199254740992"],
  ["timestamptz", "2026-11-23T10:15:30.123456Z", "2026-11-23T10:15:30.123Z"],
  ["timestamptz", "2026-11-20T10:15:30Z", "2026-11-20T10:15:03Z"],
  ["json", { a: [1, 2] }, { a: [2, 1] }],
  ["boolean", true, false],
  ["boolean", false, 1],
  ["boolean", false, "yes"],
  ["number", 0, ""],
  ["number", 5, "5x"],
  ["timestamptz", "2026-11-23T10:15:30Z", "2026-11-23 10:15:30+02"],
  ["interval", "P1D", "24:00:00"],
  ["interval", "PT1M", "1 mon"],
  ["date", "2026-11-23", new Date(2026, 10, 24)],
  ["bytea", "YQ==", "\\x62"],
  ["json", { b: [1, 2n] }, { b: ["1", "2"] }],
  ["json", { a: true }, { a: "true" }],
  ["json", { a: 12345678901234567890n }, { a: "12345678901234567890" }],
  ["text", [1], ["1"]],
  ["text", ["a,b"], ["a", "b"]],
  ["text", [null], ["null"]],
])("%s: %o and %o are not", (form, a, b) => {
  const columns = [{ name: "x", form }];
  expect(comparableText(columns, { x: a })).not.toBe(comparableText(columns, { x: b }));
  expect(differingColumns(columns, { x: a }, { x: b })).toEqual(["x"]);
});

test("chunks differ where a row does, whatever the order", () => {
  const rows = Array.from({ length: 20_000 }, (_, i) => `row ${i}`);
  const sums = (texts: readonly string[]) => {
    const made = new ChunkSums();
    for (const text of texts) made.add(text.slice(0, 9), digestOf(text));
    return made;
  };
  expect(sums(rows).differing(sums(rows.toReversed()))).toEqual([]);
  const changed = rows.with(7, "row 7 is another");
  expect(sums(rows).differing(sums(changed)).length).toBeGreaterThan(0);
  expect(sums(rows).differing(sums(rows.slice(1)))).toHaveLength(1);
  // Two rows that changed places in each other's keys are not equal either.
  const swapped = [...rows.slice(2), "row 0\0b", "row 1\0a"];
  const other = [...rows.slice(2), "row 0\0a", "row 1\0b"];
  expect(sums(swapped).differing(sums(other)).length).toBeGreaterThan(0);
  const all = sums(rows);
  const used = Array.from({ length: CHUNKS }, (_, i) => all.count(i)).filter((n) => n > 0);
  expect(used.length).toBeGreaterThan(CHUNKS / 2);
});
