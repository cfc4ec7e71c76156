import { expect, test } from "vitest";
import type { SinkRow } from "../../../lib/consume/api/verifiable-sink.ts";
import type { BuiltinForm } from "../../../lib/source/postgres/decode/values/builtin-types.ts";
import { type Comparison, compareTable } from "../../../lib/verify/verify.ts";

/** `readings`: what the sink gives, one reading after the other; the last stays. */
function compared(source: readonly SinkRow[], readings: readonly SinkRow[][], v: BuiltinForm = "text") {
  const key = [{ name: "id", form: "number" as const }];
  let reading = 0;
  const now = () => readings[Math.min(reading, readings.length - 1)] as SinkRow[];
  const of = (rows: readonly SinkRow[], { id }: SinkRow) => rows.find((row) => row.id === id);
  return compareTable({
    source: {
      columns: [...key, { name: "v", form: v }],
      key,
      async *pages() {
        yield source.map((values) => ({ values, version: "1" }));
      },
      row: async (row) => {
        const values = of(source, row);
        return values && { values, version: "1" };
      },
    },
    sink: {
      async *rows() {
        yield now();
        reading++;
      },
      row: async (row) => of(now(), row),
    },
    pass: async () => [],
    isParked: () => false,
    signal: new AbortController().signal,
  });
}

const kinds = ({ differences }: Comparison) => differences.map(({ kind, key }) => [kind, key]);

test("a row that the sink holds twice is a difference, whichever of them is looked at", async () => {
  const source = [{ id: 1, v: "new" }];
  const [fresh, old] = [
    { id: 1, v: "new" },
    { id: 1, v: "old" },
  ];
  expect(kinds(await compared(source, [[fresh, fresh]]))).toEqual([["repeated", { id: 1 }]]);
  expect(kinds(await compared(source, [[fresh, old]]))).toEqual([["repeated", { id: 1 }]]);
  expect(kinds(await compared(source, [[old, fresh]]))).toEqual([["repeated", { id: 1 }]]);
});

test("a row that the sink gave twice in a reading, and once in the next, is none", async () => {
  const row = { id: 1, v: "a" };
  expect(await compared([row], [[row, row], [row, row], [row]])).toMatchObject({
    differences: [],
    undecided: 0,
  });
});

test("rows are named no more than the bound says, repeated ones too", async () => {
  const rows = Array.from({ length: 1_001 }, (_, id) => ({ id, v: "a" }));
  const found = await compared(rows, [[...rows, ...rows]]);
  expect([found.differences.length, found.more]).toEqual([1_000, true]);
});

test("JSON is compared by value and type, not by its print", async () => {
  const of = (v: unknown) => [{ id: 1, v }];
  expect(kinds(await compared(of({ a: 1 }), [of({ a: "1" })], "json"))).toEqual([["different", { id: 1 }]]);
  expect(kinds(await compared(of({ a: 1 }), [of('{"a": 1}')], "json"))).toEqual([]);
  expect(kinds(await compared(of({ a: null }), [of({ a: null })], "json"))).toEqual([]);
});
