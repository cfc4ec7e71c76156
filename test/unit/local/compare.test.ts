import { describe, expect, it } from "vitest";
import type { SinkRow } from "../../../lib/consume/api/verifiable-sink.ts";
import { compareOnce, compareRows, describeMismatch } from "../../../lib/local/shop/compare.ts";

const KEY = [
  { name: "order_id", form: "numeric" },
  { name: "line", form: "number" },
] as const;

/** The lines of orders, as the table has them and as a consumer does. */
function compared(source: readonly SinkRow[], held: readonly SinkRow[]) {
  const of = (rows: readonly SinkRow[], key: SinkRow) =>
    rows.find((row) => KEY.every(({ name }) => row[name] === key[name]));
  const values = ["sku", "quantity", "price"].map((name) => ({ name, form: "text" as const }));
  return compareRows("order_items", {
    source: {
      columns: [...KEY, ...values],
      key: KEY,
      async *pages() {
        yield source.map((row) => ({ values: row, version: undefined }));
      },
      async row(key) {
        const row = of(source, key);
        return row && { values: row, version: "1" };
      },
    },
    sink: {
      async *rows() {
        yield held;
      },
      row: async (key) => of(held, key),
    },
    signal: new AbortController().signal,
  });
}

const row = (order_id: string, line: string, quantity = "1") => ({
  order_id,
  line,
  sku: "TEAPOT-1",
  quantity,
  price: "9.90",
});

describe("the comparison", () => {
  it("finds nothing where both sides are equal, in any order", async () => {
    expect(await compared([row("1", "1"), row("1", "2")], [row("1", "2"), row("1", "1")])).toEqual([]);
  });

  it("names rows that are missing, extra or different, by their whole key", async () => {
    const found = await compared(
      [row("1", "1"), row("1", "2"), row("2", "1")],
      [row("1", "1"), row("2", "1", "5"), row("3", "1")],
    );
    expect(found.map(describeMismatch).sort()).toEqual([
      "order_items 1/2: missing",
      "order_items 2/1: differs in quantity",
      "order_items 3/1: extra",
    ]);
  });

  it("tells null from the text null and from nothing", async () => {
    const without = { ...row("1", "1"), sku: null };
    const text = { ...row("1", "1"), sku: "null" };
    expect(await compared([without], [text])).toHaveLength(1);
    expect(await compared([without], [without])).toHaveLength(0);
  });

  it("finds a row that is held twice", async () => {
    expect(await compared([row("1", "1")], [row("1", "1"), row("1", "1")])).toHaveLength(1);
  });

  it("finds what happened twice, not at all, or without being expected", () => {
    const found = compareOnce("notification", new Set(["1", "2", "3"]), ["1", "2", "2", "4"]);
    expect(found.map(describeMismatch).sort()).toEqual([
      "notification 2: extra",
      "notification 3: missing",
      "notification 4: extra",
    ]);
  });
});
