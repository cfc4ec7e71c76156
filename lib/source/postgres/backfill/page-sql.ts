import pg from "pg";
import { quoteIdentifier } from "../../../change/sql-identifier.ts";
import type { ServerEncoding } from "../decode/values/charset.ts";
import { type PageColumn, selectList, type TableShape } from "./table-shape.ts";

/** Which rows of a table a chunk is to hold. */
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
export type RowKey = Readonly<Record<string, string>>;

/** A filter for the rows of these keys; undefined: one of them lacks a column of the table's key, which is another one by now. */
export function keysWhere({ page }: Pick<TableShape, "page">, keys: readonly RowKey[]): string | undefined {
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
