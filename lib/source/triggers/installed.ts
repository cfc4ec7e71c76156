import type pg from "pg";
import type { TableName } from "../../change/table-pattern.ts";
import { captureFunctionBody } from "./audit-sql.ts";

/** `tributary triggers` is run by who owns the tables. */
export const INSTALL = "tributary triggers install";

/** A table with triggers of ours; what a partition has from its table does not count. */
export interface TableTriggers extends TableName {
  readonly oid: number;
  /** Names of all of them, and of its row triggers. */
  readonly names: readonly string[];
  readonly rows: readonly string[];
  /** Changes and truncates are told, always. */
  readonly whole: boolean;
  /** Its rows are told, always, when it is truncated as a partition. */
  readonly beforeTruncate: boolean;
}

/** Bits of `tgtype`. https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_trigger.h */
const [ROW, BEFORE, TRUNCATE] = [1, 2, 32];

/** The tables with triggers of ours. */
export async function readTriggers(client: pg.ClientBase, schema: string): Promise<readonly TableTriggers[]> {
  const { rows } = await client.query<TableTriggers>(
    `SELECT n.nspname::text AS schema, c.relname::text AS "table", c.oid::int8::float8 AS oid,
            array_agg(t.tgname::text ORDER BY t.tgname) AS names,
            coalesce(array_agg(t.tgname::text ORDER BY t.tgname) FILTER (WHERE t.tgtype & ${ROW} <> 0), '{}') AS rows,
            bool_or(t.tgenabled = 'A' AND t.tgtype & ${ROW} <> 0)
              AND bool_or(t.tgenabled = 'A' AND t.tgtype & ${TRUNCATE + BEFORE} = ${TRUNCATE}) AS whole,
            bool_or(t.tgenabled = 'A' AND t.tgtype & ${TRUNCATE + BEFORE} = ${TRUNCATE + BEFORE}) AS "beforeTruncate"
       FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
      WHERE f.nspname = $1 AND p.proname = 'capture' AND t.tgparentid = 0
      GROUP BY n.nspname, c.relname, c.oid ORDER BY 1, 2`,
    [schema],
  );
  return rows;
}

/** Partitions whose rows are told by their table's trigger, but not when they are truncated alone. */
export const UNWATCHED_PARTITIONS = `
  SELECT n.nspname::text AS schema, c.relname::text AS "table"
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
   WHERE f.nspname = $1 AND p.proname = 'capture' AND t.tgparentid <> 0 AND c.relkind = 'r'
     AND NOT EXISTS (SELECT FROM pg_trigger b WHERE b.tgrelid = t.tgrelid AND b.tgfoid = t.tgfoid
                        AND b.tgenabled = 'A' AND b.tgtype & ${TRUNCATE + BEFORE} = ${TRUNCATE + BEFORE})
   GROUP BY 1, 2 ORDER BY 1, 2`;

/** Returns true if the function that the triggers call is the one of this version; what an older one wrote is read as well. */
export async function isFunctionCurrent(client: pg.ClientBase, schema: string): Promise<boolean> {
  const { rows } = await client.query<{ body: string }>(
    `SELECT p.prosrc AS body FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = $1 AND p.proname = 'capture' AND p.pronargs = 0`,
    [schema],
  );
  return rows[0]?.body === captureFunctionBody(schema);
}
