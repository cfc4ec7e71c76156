import type pg from "pg";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";

/** The size of a table with its partitions. */
export interface TableSize {
  /** The planner's estimate; undefined before the first ANALYZE. */
  readonly rows: number | undefined;
  /** On disk, with large values and without indexes. */
  readonly bytes: number;
}

/** Returns the estimates that the catalog has of these tables, by name as people write it. */
export async function estimateTables(
  client: pg.ClientBase,
  tables: readonly (TableName & { readonly oid: number })[],
): Promise<ReadonlyMap<string, TableSize>> {
  const { rows } = await client.query<{ oid: number; rows: number | null; bytes: number }>(
    `SELECT t.oid::int8::float8 AS oid, part.rows, part.bytes
       FROM unnest($1::oid[]) t(oid)
       CROSS JOIN LATERAL (
         SELECT CASE WHEN bool_and(c.reltuples >= 0) THEN sum(c.reltuples)::float8 END AS rows,
                sum(pg_table_size(c.oid))::float8 AS bytes
           FROM pg_class c
          -- Of an ordinary table the tree is empty before 18.
          WHERE c.oid = t.oid AND c.relkind <> 'p'
             OR c.oid IN (SELECT relid FROM pg_partition_tree(t.oid) WHERE isleaf AND relid <> t.oid)) part`,
    [tables.map(({ oid }) => oid)],
  );
  const byOid = new Map(rows.map((row) => [row.oid, row]));
  return new Map(
    tables.map((table) => {
      const { rows: estimate, bytes } = byOid.get(table.oid) ?? { rows: null, bytes: 0 };
      return [formatTable(table), { rows: estimate ?? undefined, bytes: bytes ?? 0 }];
    }),
  );
}
