import { describe, expect, it } from "vitest";
import { compareOnce, compareRows, describeMismatch, ORDER_ITEMS } from "../../../lib/local/shop/compare.ts";

const row = (order_id: string, line: string, quantity = "1") => ({
  order_id,
  line,
  sku: "TEAPOT-1",
  quantity,
  price: "9.90",
});

describe("the comparison", () => {
  it("finds nothing where both sides are equal, in any order", () => {
    expect(compareRows(ORDER_ITEMS, [row("1", "1"), row("1", "2")], [row("1", "2"), row("1", "1")])).toEqual(
      [],
    );
  });

  it("names rows that are missing, extra or different, by their whole key", () => {
    const found = compareRows(
      ORDER_ITEMS,
      [row("1", "1"), row("1", "2"), row("2", "1")],
      [row("1", "1"), row("2", "1", "5"), row("3", "1")],
    );
    expect(found.map(describeMismatch).sort()).toEqual([
      "order_items 1/2: missing",
      "order_items 2/1: differs in quantity",
      "order_items 3/1: extra",
    ]);
  });

  it("tells null from the text null and from nothing", () => {
    const without = { ...row("1", "1"), sku: null };
    const text = { ...row("1", "1"), sku: "null" };
    expect(compareRows(ORDER_ITEMS, [without], [text])).toHaveLength(1);
    expect(compareRows(ORDER_ITEMS, [without], [without])).toHaveLength(0);
  });

  it("finds a row that is held twice", () => {
    expect(compareRows(ORDER_ITEMS, [row("1", "1")], [row("1", "1"), row("1", "1")])).toHaveLength(1);
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
