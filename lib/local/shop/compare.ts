import type pg from "pg";

/** Rows as text by column name, null where the database has null. */
export type TextRow = Readonly<Record<string, string | null>>;

/** One row that a consumer holds otherwise than the table does, or an effect that is missing or doubled. */
export interface Mismatch {
  readonly what: string;
  readonly key: string;
  /** `missing` at the consumer, `extra` there, or the columns that differ. */
  readonly kind: "missing" | "extra" | readonly string[];
}

/** A table of the shop as the comparison reads it, on both sides. */
export interface ComparedTable {
  readonly name: string;
  readonly key: readonly string[];
  /** Every column, with the type that its text is read and printed by. */
  readonly columns: Readonly<Record<string, string>>;
}

/** The shop's customers. */
export const CUSTOMERS: ComparedTable = {
  name: "customers",
  key: ["id"],
  columns: {
    id: "bigint",
    email: "text",
    name: "text",
    tier: "text",
    credit: "numeric(12,2)",
    note: "text",
    created_at: "timestamptz",
  },
};

/** The shop's orders. */
export const ORDERS: ComparedTable = {
  name: "orders",
  key: ["id"],
  columns: {
    id: "bigint",
    customer_id: "bigint",
    status: "text",
    total: "numeric(12,2)",
    placed_at: "timestamptz",
    updated_at: "timestamptz",
  },
};

/** The lines of the orders. */
export const ORDER_ITEMS: ComparedTable = {
  name: "order_items",
  key: ["order_id", "line"],
  columns: {
    order_id: "bigint",
    line: "integer",
    sku: "text",
    quantity: "integer",
    price: "numeric(12,2)",
  },
};

/** All rows of a table as PostgreSQL prints them; `where` is SQL. */
export async function readTable(
  client: pg.ClientBase,
  table: ComparedTable,
  where = "true",
): Promise<TextRow[]> {
  const { rows } = await client.query<TextRow>(`SELECT ${asText(table)} FROM ${table.name} WHERE ${where}`);
  return rows;
}

/** Rows that stand elsewhere than in PostgreSQL, in the form that PostgreSQL prints the same values. */
export async function printAsTable(
  client: pg.ClientBase,
  table: ComparedTable,
  rows: readonly Readonly<Record<string, unknown>>[],
): Promise<TextRow[]> {
  const typed = Object.entries(table.columns).map(([column, type]) => `${column} ${type}`);
  const printed = await client.query<TextRow>(
    `SELECT ${asText(table)} FROM json_to_recordset($1) AS ${table.name}(${typed.join(", ")})`,
    [JSON.stringify(rows)],
  );
  return printed.rows;
}

/** Every row that differs between a table and what a consumer holds of it, by key. */
export function compareRows(
  table: ComparedTable,
  expected: readonly TextRow[],
  held: readonly TextRow[],
): Mismatch[] {
  const keyOf = (row: TextRow) => table.key.map((column) => row[column]).join("/");
  const unmatched = new Map(held.map((row) => [keyOf(row), row]));
  const mismatches: Mismatch[] = [];
  if (unmatched.size < held.length) {
    mismatches.push({ what: table.name, key: "(several rows have one key)", kind: "extra" });
  }
  for (const row of expected) {
    const key = keyOf(row);
    const other = unmatched.get(key);
    unmatched.delete(key);
    if (other === undefined) {
      mismatches.push({ what: table.name, key, kind: "missing" });
      continue;
    }
    const different = Object.keys(table.columns).filter((column) => row[column] !== other[column]);
    if (different.length > 0) mismatches.push({ what: table.name, key, kind: different });
  }
  for (const key of unmatched.keys()) mismatches.push({ what: table.name, key, kind: "extra" });
  return mismatches;
}

/**
 * Compares what must have happened once for each key with what happened: a key that is missing, was not expected,
 * or came more than once.
 */
export function compareOnce(
  what: string,
  expected: ReadonlySet<string>,
  happened: readonly string[],
): Mismatch[] {
  const times = new Map<string, number>();
  for (const key of happened) times.set(key, (times.get(key) ?? 0) + 1);
  const missing = [...expected].filter((key) => !times.has(key));
  const extra = [...times].filter(([key, count]) => !expected.has(key) || count > 1);
  return [
    ...missing.map((key): Mismatch => ({ what, key, kind: "missing" })),
    ...extra.map(([key]): Mismatch => ({ what, key, kind: "extra" })),
  ];
}

/** A mismatch as one line: `orders 17: differs in status, total`. */
export function describeMismatch({ what, key, kind }: Mismatch): string {
  if (typeof kind === "string") return `${what} ${key}: ${kind}`;
  return `${what} ${key}: differs in ${kind.join(", ")}`;
}

function asText(table: ComparedTable): string {
  return Object.keys(table.columns)
    .map((column) => `${column}::text AS ${column}`)
    .join(", ");
}
