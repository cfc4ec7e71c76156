import pg from "pg";
import * as z from "zod";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Relation, ReplicaIdentity } from "../decode/pgoutput/messages.ts";
import { NOT_NULL } from "../preflight/table-facts.ts";
import { BackfillRefusedError } from "./backfill-errors.ts";

/** A column that pages are cut by. Operators and collation are those of the index, so that it is used. */
export interface PageColumn {
  readonly name: string;
  /** Its type for a literal, such as `pg_catalog.int8`. */
  readonly type: string;
  /** The type to compare it as, where operators do not take its own: a domain over an enum is no enum to them. */
  readonly comparedAs: string | undefined;
  /** Set if the index has another collation than the column. */
  readonly collation: string | undefined;
  /** OID of the index's collation, 0 for none. */
  readonly order: number;
  /** Tells the labels of an enum from others, and their order; null where there are none. */
  readonly labels: string | null;
  /** Operators in the order of pages: `OPERATOR(pg_catalog.<)` and so on. */
  readonly before: string;
  readonly notAfter: string;
  readonly equal: string;
  readonly notBefore: string;
  readonly after: string;
  /** All of that is what plain `ORDER BY` and `>` mean. */
  readonly plain: boolean;
}

/** A table as a chunk reads it: what the log would say of it, and how its pages are cut. */
export interface TableShape {
  readonly relation: Relation;
  /** `ONLY "public"."orders"`, for FROM. */
  readonly from: string;
  /** Row filter of the publication, or undefined. */
  readonly filter: string | undefined;
  readonly page: readonly PageColumn[];
  /** Indexes of the page's columns among the relation's. */
  readonly pageIndexes: readonly number[];
  /** The server's estimate of its rows; undefined where it has none. */
  readonly estimatedRows: number | undefined;
  /** Text of the snapshot that all of this was read with (`pg_current_snapshot()`). */
  readonly snapshot: string;
}

const operator = z.string();
const indexColumn = z.object({
  name: z.string(),
  type: z.string(),
  enumOfDomain: z.string().nullable(),
  notNull: z.boolean(),
  collation: z.string().nullable(),
  order: z.number(),
  labels: z.string().nullable(),
  descending: z.boolean(),
  less: operator,
  lessEqual: operator,
  equal: operator,
  greaterEqual: operator,
  greater: operator,
});

const index = z.object({
  primary: z.boolean(),
  identity: z.boolean(),
  immediate: z.boolean(),
  columns: z.array(indexColumn),
});

const shapeRow = z.object({
  oid: z.number(),
  kind: z.string(),
  persistence: z.string(),
  identity: z.enum(["d", "n", "f", "i"]),
  estimate: z.number(),
  published: z.boolean(),
  filter: z.string().nullable(),
  listed: z.array(z.string()).nullable(),
  columns: z.array(
    z.object({ name: z.string(), type: z.number(), modifier: z.int(), generated: z.string() }),
  ),
  indexes: z.array(index),
  snapshot: z.string(),
});

const IDENTITIES: Readonly<Record<string, ReplicaIdentity>> = {
  d: "default",
  n: "nothing",
  f: "full",
  i: "index",
};

/**
 * One row: the table, its columns, its unique indexes with the operators of their operator classes, what the publication
 * says of it, and the snapshot of the statement. Parameters would need another protocol: names are literals.
 * https://www.postgresql.org/docs/current/catalog-pg-index.html, …/catalog-pg-amop.html, …/view-pg-publication-tables.html
 */
export function shapeSql(table: TableName, publication: string | undefined, version: number): string {
  // Column lists and row filters came with 15.
  const lists = version >= 150_000;
  return `
    SELECT c.oid::int8::float8 AS oid, c.relkind::text AS kind, c.relpersistence::text AS persistence,
           c.relreplident::text AS identity, pg_current_snapshot()::text AS snapshot,
           (SELECT coalesce(sum(l.reltuples) FILTER (WHERE l.reltuples > 0), -1)::float8
              FROM pg_class l WHERE l.oid = c.oid AND c.relkind <> 'p'
                 OR c.relkind = 'p' AND l.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)) AS estimate,
           p.pubname IS NOT NULL AS published,
           ${lists ? "p.rowfilter" : "NULL"} AS filter, ${lists ? "to_jsonb(p.attnames)" : "NULL"} AS listed,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', a.atttypid::int8,
                     'modifier', a.atttypmod, 'generated', a.attgenerated) ORDER BY a.attnum), '[]')
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('primary', i.indisprimary, 'identity', i.indisreplident,
                     'immediate', i.indimmediate, 'columns', ${INDEX_COLUMNS}) ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid), '[]')
              FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
             WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive
               AND i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree') AS indexes
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_publication_tables p ON p.pubname = ${publication === undefined ? "NULL" : pg.escapeLiteral(publication)} AND p.schemaname = n.nspname AND p.tablename = c.relname
     WHERE n.nspname = ${pg.escapeLiteral(table.schema)} AND c.relname = ${pg.escapeLiteral(table.table)}`;
}

const OPERATOR = (strategy: number) => `(
  SELECT 'OPERATOR(' || quote_ident(s.nspname) || '.' || o.oprname || ')'
    FROM pg_amop ao JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace
   WHERE ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
     AND ao.amopstrategy = ${strategy})`;

/**
 * The labels, in their order, of all enums that the type of the attribute `a` is made of; NULL for none. Renamed, a label that was
 * read is no value any more, or another one.
 */
const LABELS = `(
  WITH RECURSIVE parts(oid) AS (
    SELECT a.atttypid
    UNION SELECT part.oid FROM parts JOIN pg_type t ON t.oid = parts.oid CROSS JOIN LATERAL (
      SELECT t.typbasetype UNION ALL SELECT t.typelem
      UNION ALL SELECT f.atttypid FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
      UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) part(oid))
  SELECT md5(string_agg(e.enumtypid || ' ' || e.enumlabel, ', ' ORDER BY e.enumtypid, e.enumsortorder))
    FROM pg_enum e JOIN parts ON parts.oid = e.enumtypid)`;

/** The enum that the type of the attribute `a` is a domain over; NULL where it is none. */
const ENUM_OF_DOMAIN = `(
  WITH RECURSIVE bases(oid) AS (
    SELECT t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid AND t.typtype = 'd'
    UNION SELECT t.typbasetype FROM bases JOIN pg_type t ON t.oid = bases.oid WHERE t.typtype = 'd')
  SELECT format_type(t.oid, -1) FROM bases JOIN pg_type t ON t.oid = bases.oid WHERE t.typtype = 'e')`;

const INDEX_COLUMNS = `(
  SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, -1), 'notNull', ${NOT_NULL},
           'enumOfDomain', ${ENUM_OF_DOMAIN},
           'collation', CASE WHEN i.indcollation[k.place - 1] <> a.attcollation
              THEN (SELECT quote_ident(s.nspname) || '.' || quote_ident(l.collname)
                      FROM pg_collation l JOIN pg_namespace s ON s.oid = l.collnamespace
                     WHERE l.oid = i.indcollation[k.place - 1]) END,
           'order', i.indcollation[k.place - 1]::int8, 'labels', ${LABELS},
           'descending', i.indoption[k.place - 1] & 1 = 1,
           'less', ${OPERATOR(1)}, 'lessEqual', ${OPERATOR(2)}, 'equal', ${OPERATOR(3)},
           'greaterEqual', ${OPERATOR(4)}, 'greater', ${OPERATOR(5)}) ORDER BY k.place)
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    JOIN pg_opclass oc ON oc.oid = i.indclass[k.place - 1]
   WHERE k.place <= i.indnkeyatts)`;

/**
 * The shape in a row of `shapeSql`: without a publication, of all columns and rows.
 * @throws BackfillRefusedError where the table is gone, is not published, or has no key to page by.
 */
export function readShape(
  table: TableName,
  publication: string | undefined,
  version: number,
  rows: readonly unknown[],
): TableShape {
  const name = formatTable(table);
  if (rows.length === 0) {
    throw new BackfillRefusedError(
      name,
      "it does not exist any more",
      "Nothing to do when it was dropped on purpose.",
    );
  }
  const facts = shapeRow.parse(rows[0]);
  if (publication !== undefined && !facts.published) {
    throw new BackfillRefusedError(
      name,
      `the publication "${publication}" does not hold it`,
      "Restart the capture task: it brings a publication of its own up to date, and says what is wrong with another.",
    );
  }
  const columns = facts.columns.filter(
    ({ name: column, generated }) =>
      // What the log holds: stored generated columns from 18 on, where the publication says so.
      (generated === "" || (generated === "s" && version >= 180_000 && facts.listed !== null)) &&
      (facts.listed?.includes(column) ?? true),
  );
  const names = columns.map((column) => column.name);
  const page = pageIndex(facts, names);
  if (!page) {
    throw new BackfillRefusedError(
      name,
      facts.identity === "f"
        ? "it has neither a primary key nor a unique index over published NOT NULL columns: rows could not be told apart"
        : "its replica identity has no index over published NOT NULL columns: rows could not be told apart",
      `ALTER TABLE ${quoteTable(table)} ADD PRIMARY KEY (…), or VALIDATE CONSTRAINT where NOT NULL is NOT VALID; then start the backfill again.`,
    );
  }
  const identity = facts.identity === "f" ? names : page.columns.map((column) => column.name);
  return {
    relation: {
      oid: facts.oid,
      schema: table.schema,
      table: table.table,
      identity: IDENTITIES[facts.identity] as ReplicaIdentity,
      columns: columns.map((column) => ({ ...column, key: identity.includes(column.name) })),
    },
    from: `${facts.kind === "p" ? "" : "ONLY "}${quoteTable(table)}`,
    filter: facts.filter ?? undefined,
    page: page.columns.map(pageColumn),
    pageIndexes: page.columns.map((column) => names.indexOf(column.name)),
    estimatedRows: facts.estimate < 0 ? undefined : facts.estimate,
    snapshot: facts.snapshot,
  };
}

/**
 * The index to page by: that of the replica identity, since its columns stand in every old row and tell which rows
 * changed; with identity full any unique one, the primary key first.
 */
function pageIndex(facts: z.output<typeof shapeRow>, published: readonly string[]) {
  return facts.indexes.find(
    (candidate) =>
      (facts.identity === "f" ||
        (facts.identity === "i" && candidate.identity) ||
        (facts.identity === "d" && candidate.primary && candidate.immediate)) &&
      candidate.columns.every((column) => column.notNull && published.includes(column.name)),
  );
}

function pageColumn(column: z.output<typeof indexColumn>): PageColumn {
  const { name, type, descending, less, lessEqual, equal, greaterEqual, greater } = column;
  return {
    name,
    type,
    comparedAs: column.enumOfDomain ?? undefined,
    collation: column.collation ?? undefined,
    order: column.order,
    labels: column.labels,
    equal,
    ...(descending
      ? { before: greater, notAfter: greaterEqual, notBefore: lessEqual, after: less }
      : { before: less, notAfter: lessEqual, notBefore: greaterEqual, after: greater }),
    plain:
      !descending &&
      column.collation === null &&
      less === "OPERATOR(pg_catalog.<)" &&
      greater === "OPERATOR(pg_catalog.>)",
  };
}

/**
 * Describes the order of a table's pages: with another one a key says nothing of what stands before it. Another
 * table of the same name is another order.
 */
export function pageOrder({ relation, page }: Pick<TableShape, "relation" | "page">): string {
  return JSON.stringify([
    relation.oid,
    ...page.map(({ name, type, order, before, labels }) => [
      ...[name, type, order, before],
      // Not where there are none: what was stored before labels counted is still the same order.
      ...(labels === null ? [] : [labels]),
    ]),
  ]);
}

/** `"a", "b"`: what a chunk selects, in the relation's order. */
export function selectList(shape: Pick<TableShape, "relation">): string {
  return shape.relation.columns.map((column) => quoteIdentifier(column.name)).join(", ");
}
