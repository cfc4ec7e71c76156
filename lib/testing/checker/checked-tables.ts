import { formatTable, forTable, type TableName } from "../../change/table-pattern.ts";
import { captures, type Pipeline } from "../../definition/definition.ts";
import { withClient } from "./local-parts.ts";
import type { TruthTable } from "./truth.ts";

/** The tables of a database that a pipeline captures, with the columns that choose their partitions. */
export async function checkedTables(databaseUrl: string, pipeline: Pipeline): Promise<TruthTable[]> {
  return withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<TableName & { key: string[] }>(`
      SELECT n.nspname AS schema, c.relname AS table, coalesce(array_agg(a.attname::text ORDER BY k.at)
        FILTER (WHERE a.attname IS NOT NULL), '{}') AS key
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
      LEFT JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, at) ON true
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      GROUP BY 1, 2`);
    return rows
      .filter((table) => captures(pipeline.source, table))
      .map((table) => ({ ...table, key: forTable(pipeline.topics.keys, table) ?? table.key }));
  });
}

/** All rows of tables as JSON text, by table and key as the checker's own handlers write it. */
export async function readRows(
  databaseUrl: string,
  tables: readonly (TableName & { readonly primaryKey: readonly string[] })[],
): Promise<Map<string, string>> {
  return withClient(databaseUrl, async (client) => {
    const found = new Map<string, string>();
    for (const table of tables) {
      const name = formatTable(table);
      const { rows } = await client.query<{ row: Record<string, unknown>; text: string }>(
        `SELECT to_jsonb(t) AS row, to_jsonb(t)::text AS text FROM ${name} AS t`,
      );
      for (const { row, text } of rows) {
        found.set(`${name} ${JSON.stringify(table.primaryKey.map((column) => row[column]))}`, text);
      }
    }
    return found;
  });
}

/** Counts the rows that differ, or that only one side has. */
export function countMismatches(
  source: ReadonlyMap<string, string>,
  held: ReadonlyMap<string, string>,
): number {
  const different = [...source].filter(([key, text]) => held.get(key) !== text);
  const surplus = [...held.keys()].filter((key) => !source.has(key));
  return different.length + surplus.length;
}
