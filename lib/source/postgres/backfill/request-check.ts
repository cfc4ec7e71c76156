import pg from "pg";
import { quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { ConfigurationProblem } from "../../../change/tributary-error.ts";
import type { LogPipeline } from "../definition.ts";
import { readServerVersion } from "../preflight/server-facts.ts";
import { whereCheckSql } from "./page-sql.ts";
import { readShape, shapeSql } from "./table-shape.ts";

const ANY_TABLE_OF_NAME =
  "SELECT schemaname AS schema, tablename AS table FROM pg_tables WHERE tablename = $1 LIMIT 5";

/**
 * Returns the problems of a backfill of a table, as far as the database knows: no such table, not published, a filter that
 * the server refuses. Only reads. Empty: nothing.
 *
 * @throws BackfillRefusedError where the table cannot be read in chunks
 */
export async function checkBackfillRequest(
  client: pg.Client,
  { source }: Pick<LogPipeline, "source">,
  table: TableName,
  where: string | undefined,
): Promise<readonly ConfigurationProblem[]> {
  const name = formatTable(table);
  const { rows: found } = await client.query<{ kind: string }>(
    "SELECT c.relkind AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
    [table.schema, table.table],
  );
  if (found.length === 0) {
    const { rows: near } = await client.query<TableName>(ANY_TABLE_OF_NAME, [table.table]);
    const remedy =
      near.length > 0
        ? `no such table: did you mean ${near.map(formatTable).join(" or ")}?`
        : "no such table in this database: correct the name, or name the right database with --database-url";
    return [{ path: "--table", value: name, remedy }];
  }
  const { rows: published } = await client.query<{ here: boolean }>(
    "SELECT bool_or(schemaname = $2 AND tablename = $3) AS here FROM pg_publication_tables WHERE pubname = $1 HAVING count(*) > 0",
    [source.publication, table.schema, table.table],
  );
  if (published[0]?.here === false) {
    return [
      {
        path: "--table",
        value: name,
        remedy: `the publication "${source.publication}" does not hold it: a partition is backfilled with its root; a table added to the definition is published, and backfilled, at the next start of the capture task`,
      },
    ];
  }
  if (published[0]?.here) {
    const version = await readServerVersion(client);
    const { rows } = await client.query(shapeSql(table, source.publication, version));
    readShape(table, source.publication, version, rows);
  }
  return where === undefined ? [] : checkWhere(client, table, where);
}

/** Plans the query and does not run it: one statement, that only reads. */
async function checkWhere(
  client: pg.Client,
  table: TableName,
  where: string,
): Promise<readonly ConfigurationProblem[]> {
  await client.query("BEGIN READ ONLY");
  try {
    await client.query({
      text: `EXPLAIN ${whereCheckSql({ from: quoteTable(table) }, where)}`,
      // Refuses a second statement behind a semicolon.
      queryMode: "extended",
    } as pg.QueryConfig);
    return [];
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    const remedy = `write an SQL expression over the table's columns: the server says ${error.message}`;
    return [{ path: "--where", value: where, remedy }];
  } finally {
    await client.query("ROLLBACK");
  }
}
