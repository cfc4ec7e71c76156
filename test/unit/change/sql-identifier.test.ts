import pg from "pg";
import { expect, it } from "vitest";
import { quoteIdentifier, quoteTable } from "../../../lib/change/sql-identifier.ts";

it("an identifier stays one whatever is in it, as the driver quotes it", () => {
  for (const name of ["orders", "Order", 'a"b', '""', "a.b", "'; DROP TABLE x; --", "größe"])
    expect(quoteIdentifier(name)).toBe(pg.escapeIdentifier(name));
});

it("a table's parts are quoted each", () => {
  expect(quoteTable({ schema: 'my"schema', table: "a.b" })).toBe('"my""schema"."a.b"');
});
