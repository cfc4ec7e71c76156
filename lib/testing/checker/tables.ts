import type { TableName } from "../../change/table-pattern.ts";

/**
 * The tables the checker works on. `v` is new with every write of a row, so that two states of a row are never
 * equal by accident; columns are `int` and `text` alone, whose JSON is the same everywhere.
 */
export const CHECKED_SCHEMA = `
  CREATE TABLE accounts (id int PRIMARY KEY, v text NOT NULL, name text, note text);
  ALTER TABLE accounts ALTER note SET STORAGE EXTERNAL;
  CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, v text NOT NULL, note text);
  ALTER TABLE orders REPLICA IDENTITY FULL;
  ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;
  CREATE TABLE parts (assembly text, part int, v text NOT NULL, quantity int, PRIMARY KEY (assembly, part));
  CREATE TABLE journal (id int PRIMARY KEY, v text NOT NULL, line text);
  CREATE SCHEMA archive;
  CREATE TABLE archive.accounts (id int PRIMARY KEY, v text NOT NULL, name text);
`;

/** A table of the checker. */
export interface CheckedTable extends TableName {
  readonly primaryKey: readonly string[];
}

/** The tables of `CHECKED_SCHEMA`. */
export const CHECKED_TABLES: readonly CheckedTable[] = [
  { schema: "public", table: "accounts", primaryKey: ["id"] },
  { schema: "public", table: "orders", primaryKey: ["id"] },
  { schema: "public", table: "parts", primaryKey: ["assembly", "part"] },
  { schema: "public", table: "journal", primaryKey: ["id"] },
  { schema: "archive", table: "accounts", primaryKey: ["id"] },
];
