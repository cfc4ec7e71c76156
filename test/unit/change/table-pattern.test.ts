import fc from "fast-check";
import { expect, test } from "vitest";
import { formatTable, forTable, parseTable, tablePattern } from "../../../lib/change/table-pattern.ts";

test.each([
  ["public.orders", "public", "orders", true],
  ["public.orders", "public", "orders2", false],
  ["public.orders", "Public", "orders", false],
  ["public.*", "public", "order items", true],
  ["public.*", "publicx", "orders", false],
  ["public.order_*", "public", "order_", true],
  ["public.order_*", "public", "orderX", false],
  ["*.orders", "sales", "orders", true],
  ["*.*", "a.b", "c\nd", true],
  ['public."Odd.Name"', "public", "Odd.Name", true],
  ['public."Odd.Name"', "public", "Odd-Name", false],
  ['public."a""b"', "public", 'a"b', true],
  ['public."all*"', "public", "all*", true],
  ['public."all*"', "public", "allx", false],
  ["public.a+b", "public", "a+b", true],
  ["public.a+b", "public", "aab", false],
  ["public.__proto__", "public", "__proto__", true],
])("%s with %s.%s: %j", (pattern, schema, table, matches) => {
  expect(tablePattern(pattern)({ schema, table })).toBe(matches);
});

test.each(["", "orders", "public.", ".orders", "a.b.c", 'public."open', "public..orders"])(
  "%j is refused by name",
  (pattern) => {
    expect(() => tablePattern(pattern)).toThrow(`not a table pattern: "${pattern}"`);
  },
);

test("a table's formatted name matches that table alone", () => {
  const identifier = fc.string({ minLength: 1, unit: "binary" }).filter((s) => !s.includes("\0"));
  fc.assert(
    fc.property(identifier, identifier, identifier, (schema, table, other) => {
      const pattern = tablePattern(formatTable({ schema, table }));
      expect(pattern({ schema, table })).toBe(true);
      expect(pattern({ schema, table: other })).toBe(other === table);
    }),
  );
});

test("of a record by pattern, the first that matches counts", () => {
  const byPattern = { "public.orders": 1, "public.*": 2 };
  expect(forTable(byPattern, { schema: "public", table: "orders" })).toBe(1);
  expect(forTable(byPattern, { schema: "public", table: "customers" })).toBe(2);
  expect(forTable(byPattern, { schema: "sales", table: "orders" })).toBeUndefined();
});

test("a table's text and its name are the same", () => {
  const identifier = fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(identifier, identifier, (schema, table) => {
      expect(parseTable(formatTable({ schema, table }))).toEqual({ schema, table });
    }),
  );
  for (const text of ["orders", "public.*", "a.b.c", 'public."open', "public.", "public.or ders", ""])
    expect(() => parseTable(text)).toThrow(RangeError);
});
