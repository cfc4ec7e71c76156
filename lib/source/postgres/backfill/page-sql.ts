import pg from "pg";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { ConfigurationProblem } from "../../../change/tributary-error.ts";
import type { ServerEncoding } from "../decode/values/charset.ts";
import type { LogPipeline } from "../definition.ts";
import { readServerVersion } from "../preflight/server-facts.ts";
import { type PageColumn, readShape, selectList, shapeSql, type TableShape } from "./table-shape.ts";

/** The rows of a table that a chunk is to hold. */
export interface Page {
  readonly shape: Pick<TableShape, "relation" | "from" | "filter" | "page">;
  /** The operator's own filter: an SQL expression that `whereCheckSql` has seen. */
  readonly where: string | undefined;
  /** Texts of the page key that the rows come after; null: from the beginning. */
  readonly after: readonly string[] | null;
  /** Texts of the page key of the last row there may be, and all rows up to it, however many; undefined: the next `rows`. */
  readonly upTo?: readonly string[] | undefined;
  readonly rows: number;
  /** As what the rows come; undefined: in the session's encoding. */
  readonly encoding?: ServerEncoding | undefined;
}

/** The rows of one page in the order of its index, as COPY text. https://www.postgresql.org/docs/current/sql-copy.html */
export function pageSql(page: Page): string {
  return copySql(pageSelect(page), page.encoding);
}

/**
 * The page key of the row that stands `rows` rows behind `after`, whatever any filter says of it; nothing where there are fewer. As
 * COPY text.
 */
export function boundSql({ shape, after, rows, encoding }: Omit<Page, "where" | "upTo">): string {
  const columns = shape.page.map(({ name }) => quoteIdentifier(name)).join(", ");
  const behind = after === null ? "" : ` WHERE ${beyond(shape.page, after)}`;
  const select = `SELECT ${columns} FROM ${shape.from}${behind} ORDER BY ${order(shape.page)} OFFSET ${rows - 1} LIMIT 1`;
  return copySql(select, encoding);
}

function copySql(select: string, encoding: ServerEncoding | undefined): string {
  const raw = encoding === undefined ? "" : ` (ENCODING '${encoding}')`;
  return `COPY (${select}) TO STDOUT${raw}`;
}

/** The one row of a key (its texts), with one more expression behind its columns. */
export function rowSelect(shape: Page["shape"], key: readonly string[], more: string): string {
  const conditions = shape.page.map(
    (column, i) => `${operand(column)} ${column.equal} ${literal(column, key[i] as string)}`,
  );
  if (shape.filter !== undefined) conditions.push(`(${shape.filter})`);
  return `SELECT ${selectList(shape)}, ${more} FROM ${shape.from} WHERE ${conditions.join(" AND ")}`;
}

/** A row's key as PostgreSQL prints it, by column. */
export type PageKey = Readonly<Record<string, string>>;

/** A filter for the rows of these keys; undefined: one of them lacks a column of the table's key, which is another one by now. */
export function keysWhere({ page }: Pick<TableShape, "page">, keys: readonly PageKey[]): string | undefined {
  const rows: string[] = [];
  for (const key of keys) {
    const parts: string[] = [];
    for (const column of page) {
      const text = Object.hasOwn(key, column.name) ? key[column.name] : undefined;
      if (text === undefined) return undefined;
      parts.push(`${operand(column)} ${column.equal} ${literal(column, text)}`);
    }
    rows.push(`(${parts.join(" AND ")})`);
  }
  return rows.join(" OR ");
}

/** The query of `pageSql`. */
export function pageSelect({ shape, where, after, upTo, rows }: Page): string {
  const conditions = [
    ...(shape.filter === undefined ? [] : [`(${shape.filter})`]),
    ...(where === undefined ? [] : [`(\n${where}\n)`]),
    ...(after === null ? [] : [beyond(shape.page, after)]),
    ...(upTo === undefined ? [] : [notBeyond(shape.page, upTo)]),
  ];
  const filtered = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
  return `SELECT ${selectList(shape)} FROM ${shape.from}${filtered} ORDER BY ${order(shape.page)}${upTo === undefined ? ` LIMIT ${rows}` : ""}`;
}

/**
 * Fails where the operator's filter is no single expression over the table: `a) OR (b` stands up between parentheses, not
 * between brackets too, and would have every page begin anew. To be sent by the extended protocol.
 */
export function whereCheckSql(shape: Pick<TableShape, "from">, where: string): string {
  return `SELECT FROM ${shape.from} WHERE (\n${where}\n) AND (ARRAY[\n${where}\n])[1] LIMIT 0`;
}

/**
 * The settings of a chunk's transaction: the planner is to walk the index, not to sort the table for every chunk, and to
 * take no more than one of the source's cores.
 */
export const PAGE_SETTINGS = [
  "SET LOCAL enable_seqscan = off",
  "SET LOCAL enable_bitmapscan = off",
  "SET LOCAL enable_sort = off",
  "SET LOCAL max_parallel_workers_per_gather = 0",
  "SET LOCAL jit = off",
].join("; ");

/** The same for rows that are named by their keys: each is looked up in the index, and then they are sorted. */
export const KEYS_SETTINGS = [
  "SET LOCAL enable_seqscan = off",
  "SET LOCAL max_parallel_workers_per_gather = 0",
  "SET LOCAL jit = off",
].join("; ");

function order(page: readonly PageColumn[]): string {
  const plain = page.every((column) => column.plain);
  return page.map((column) => expression(column) + (plain ? "" : ` USING ${column.before}`)).join(", ");
}

/** Rows behind a key. */
function beyond(page: readonly PageColumn[], key: readonly string[]): string {
  return compared(page, key, {
    plain: ">",
    strictly: (column) => column.after,
    loosely: (column) => column.notBefore,
    last: (column) => column.after,
  });
}

/** Rows up to a key, its own included. */
function notBeyond(page: readonly PageColumn[], key: readonly string[]): string {
  return compared(page, key, {
    plain: "<=",
    strictly: (column) => column.before,
    loosely: (column) => column.notAfter,
    last: (column) => column.notAfter,
  });
}

interface Side {
  /** Of plain columns, compared as one row. */
  readonly plain: string;
  /** Operators of a column of others. */
  readonly strictly: (column: PageColumn) => string;
  readonly loosely: (column: PageColumn) => string;
  /** Of the last column, where all others are equal. */
  readonly last: (column: PageColumn) => string;
}

/** Rows on one side of a key. As one comparison of rows where the operators allow it: an index condition over all columns. */
function compared(page: readonly PageColumn[], key: readonly string[], side: Side): string {
  const value = (i: number) => literal(page[i] as PageColumn, key[i] as string);
  if (page.every((column) => column.plain)) {
    const row = (parts: readonly string[]) => (parts.length === 1 ? parts[0] : `(${parts.join(", ")})`);
    return `${row(page.map(operand))} OPERATOR(pg_catalog.${side.plain}) ${row(page.map((_, i) => value(i)))}`;
  }
  // a >= x AND (a > x OR (a = x AND (b > y OR …))): the first condition bounds the index scan.
  let rest = "";
  for (let i = page.length - 1; i >= 0; i--) {
    const column = page[i] as PageColumn;
    const is = operand(column);
    if (rest === "") rest = `${is} ${side.last(column)} ${value(i)}`;
    else
      rest = `(${is} ${side.strictly(column)} ${value(i)} OR (${is} ${column.equal} ${value(i)} AND ${rest}))`;
  }
  const first = page[0] as PageColumn;
  return `(${operand(first)} ${side.loosely(first)} ${value(0)} AND ${rest})`;
}

function expression({ name, collation }: PageColumn): string {
  return quoteIdentifier(name) + (collation === undefined ? "" : ` COLLATE ${collation}`);
}

/** The column beside an operator. */
function operand(column: PageColumn): string {
  return expression(column) + (column.comparedAs === undefined ? "" : `::${column.comparedAs}`);
}

function literal({ type, comparedAs }: PageColumn, text: string): string {
  return `${pg.escapeLiteral(text)}::${comparedAs ?? type}`;
}

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
