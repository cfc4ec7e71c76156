import type { TableName } from "../../change/table-pattern.ts";

/**
 * A sink that `tributary verify` can read, exported as `sink` beside `handler` from the consumer's entry file.
 *
 * @example
 * export const sink: VerifiableSink = {
 *   table: ({ table }) => (table === "orders" ? ordersHeld : undefined),
 *   close: () => pool.end(),
 * };
 */
export interface VerifiableSink {
  /** Returns its table for a source table; undefined if it holds nothing that could be compared. */
  table(name: TableName): VerifiableTable | undefined;
  /** Ends what would keep the process alive. */
  close?(): Promise<unknown>;
}

/**
 * The value `null` of a json or jsonb column, as a sink that tells it from NULL gives it to `tributary verify`.
 *
 * @example
 * const row: SinkRow = { id: "17", settings: isJsonNull ? JSON_NULL : settings };
 */
export const JSON_NULL: unique symbol = Symbol.for("tributary.JSON_NULL");

/**
 * A sink's rows of one source table. Only reads.
 *
 * @example
 * const ordersHeld: VerifiableTable = {
 *   columns: ["id", "status"],
 *   rows: (signal) => pagesOf("SELECT id, status FROM orders", signal),
 *   row: async ({ id }) => (await database.query("SELECT id, status FROM orders WHERE id = $1", [id])).rows[0],
 * };
 */
export interface VerifiableTable {
  /** The source's columns that it holds unchanged, those of the key among them; default: all. */
  readonly columns?: readonly string[];
  /**
   * Set where it tells a JSON null from NULL and gives it as `JSON_NULL`, inside arrays too. By default both are compared as null: most
   * drivers read them so.
   */
  readonly jsonNull?: boolean;
  /** All rows it holds now (no tombstones), in any order, in pages of any size. */
  rows(signal: AbortSignal): AsyncIterable<readonly SinkRow[]>;
  /** The row of a key now, read consistently; undefined where it holds none. */
  row(key: SinkRow, signal: AbortSignal): Promise<SinkRow | undefined>;
}

/**
 * Values by the source's column names, as events carry them or as PostgreSQL prints them.
 *
 * @example
 * const row: SinkRow = { id: "17", status: "paid", placed_at: "2026-11-23T10:15:30.123456Z" };
 */
export type SinkRow = Readonly<Record<string, unknown>>;
