import type pg from "pg";
import { formatTable, forTable, type TableName, tablePattern } from "../../change/table-pattern.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { routeTables } from "../../definition/route.ts";
import { sourceKind } from "../../source/index.ts";
import {
  type PublicationFacts,
  publishedAs,
  readPublication,
} from "../../source/postgres/catalog/publication.ts";
import { publishable } from "../../source/postgres/catalog/publication-plan.ts";
import { pgTypeCatalog } from "../../source/postgres/catalog/type-catalog.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import { PreflightError } from "../../source/postgres/postgres-errors.ts";
import { captureTables } from "../../source/postgres/preflight/captured-tables.ts";
import { readServerVersion } from "../../source/postgres/preflight/server-facts.ts";
import {
  identityColumns,
  NOT_NULL,
  readRelations,
  readTables,
  type TableFacts,
} from "../../source/postgres/preflight/table-facts.ts";
import type { CatalogTypes } from "./column-type.ts";

/** A column of a captured table, as its events have it. */
export interface RowColumn {
  readonly name: string;
  /** OID of its type. */
  readonly type: number;
  /** The type as PostgreSQL writes it. */
  readonly typeText: string;
  readonly nullable: boolean;
  readonly comment: string | undefined;
  /** Its value may not travel: an update that left a large value as it was, or a change that was too large. */
  readonly mayBeAbsent: boolean;
}

/** A captured table, as its events have its rows. */
export interface RowTable extends TableName {
  readonly comment: string | undefined;
  readonly columns: readonly RowColumn[];
  /** Columns that choose the partition; empty without a key. */
  readonly key: readonly string[];
  /** Columns that are not in events, with the reason. */
  readonly leftOut: readonly { readonly name: string; readonly why: string }[];
}

interface FoundColumn {
  readonly name: string;
  readonly type: number;
  readonly typmod: number;
  readonly typeText: string;
  readonly notNull: boolean;
  readonly generated: string;
  readonly comment: string | null;
}

interface Found {
  readonly oid: number;
  readonly comment: string | null;
  readonly columns: readonly FoundColumn[];
}

const COLUMNS = `
  SELECT c.oid::int8::float8 AS oid, obj_description(c.oid, 'pg_class') AS comment,
         (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', a.atttypid::int8, 'typmod', a.atttypmod,
                   'typeText', format_type(a.atttypid, a.atttypmod), 'notNull', ${NOT_NULL}, 'generated', a.attgenerated,
                   'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum), '[]')
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM pg_class c WHERE c.oid = ANY ($1::oid[])`;

const LABELS = `
  SELECT enumtypid::int8::float8 AS oid, array_agg(enumlabel::text ORDER BY enumsortorder) AS labels
    FROM pg_enum GROUP BY enumtypid`;

/**
 * Reads the tables that a definition captures, by schema and name, and the types of their columns. `patterns`: these alone.
 * @throws PreflightError where the definition's patterns do not fit the database.
 */
export async function readRowTables(
  client: pg.Client,
  pipeline: Pipeline,
  patterns: readonly string[] | undefined,
): Promise<{ readonly tables: readonly RowTable[]; readonly types: CatalogTypes }> {
  const log = sourceKind(pipeline.source).throughSlots?.(pipeline);
  const captured = captureTables(log?.source ?? pipeline.source, await readRelations(client));
  if (captured.problems.length > 0) throw new PreflightError(captured.problems);
  const matchers = patterns?.map(tablePattern);
  const outbox = log?.source.outbox?.table;
  const wanted = captured.tables
    .filter((table) => formatTable(table) !== outbox)
    .filter((table) => !matchers || matchers.some((matches) => matches(table)))
    .sort((a, b) => (formatTable(a) < formatTable(b) ? -1 : 1));
  const [facts, leaves, version] = [
    await readTables(client, wanted),
    await readTables(client, captured.leaves),
    await readServerVersion(client),
  ];
  const { rows } = await client.query<Found>(COLUMNS, [wanted.map(({ oid }) => oid)]);
  const byOid = new Map(rows.map((row) => [row.oid, row]));
  const publication = log && (await readPublication(client, log.source.publication, version));
  const surroundings = { pipeline, log, publication, version, leaves };
  const tables = facts.flatMap((table) => {
    const found = byOid.get(table.oid);
    return found ? [rowTable(table, found, surroundings)] : [];
  });
  const oids = [...new Set(rows.flatMap(({ columns }) => columns.map(({ type }) => type)))];
  const catalog = pgTypeCatalog(async (sql, values) => await client.query(sql, values));
  const { rows: enums } = await client.query<{ oid: number; labels: string[] }>(LABELS);
  const labels = new Map(enums.map((row) => [row.oid, row.labels]));
  return { tables, types: { facts: await catalog.resolve(oids), labels } };
}

interface Surroundings {
  readonly pipeline: Pipeline;
  /** Undefined where tables are read without the log: rows are whole then. */
  readonly log: LogPipeline | undefined;
  readonly publication: PublicationFacts | undefined;
  readonly version: number;
  readonly leaves: readonly TableFacts[];
}

function rowTable(facts: TableFacts, { comment, columns }: Found, surroundings: Surroundings): RowTable {
  const { pipeline, log, leaves } = surroundings;
  const key = routeTables(pipeline)(facts).key ?? ownKey(facts);
  const travels = travellingColumns(facts, surroundings);
  const excluded = (log && forTable(log.source.excludeColumns, facts)) ?? [];
  const family = [facts, ...leaves.filter(({ ancestors }) => ancestors.includes(facts.oid))];
  const large = log ? new Set(family.flatMap(largeValues)) : new Set<string>();
  const omits = pipeline.stream.oversize === "omit";
  return {
    schema: facts.schema,
    table: facts.table,
    comment: comment ?? undefined,
    key,
    columns: columns
      .filter(({ name }) => travels.has(name))
      .map((column) => ({
        ...{ name: column.name, type: column.type, typeText: column.typeText },
        nullable: !column.notNull,
        comment: column.comment ?? undefined,
        mayBeAbsent: !key.includes(column.name) && (omits || (large.has(column.name) && !isSmall(column))),
      })),
    leftOut: columns
      .filter(({ name }) => !travels.has(name))
      .map(({ name, generated }) => ({
        name,
        why: excluded.includes(name)
          ? "source.excludeColumns"
          : generated === ""
            ? "not in the publication"
            : "generated",
      })),
  };
}

/** The row's own key: with identity full its primary key. */
function ownKey(facts: TableFacts): readonly string[] {
  if (facts.replicaIdentity === "f") return facts.primaryKey;
  return identityColumns(facts) ?? facts.primaryKey;
}

/** Names of the columns that events have. A publication of others is used as it is; ours is what the definition says. */
function travellingColumns(
  facts: TableFacts,
  { log, publication, version }: Surroundings,
): ReadonlySet<string> {
  const all = publishable(facts, version);
  if (!log) return new Set(all);
  const published = publication && !publication.ours ? publishedAs(publication, facts) : undefined;
  if (published?.columns) return new Set(published.columns);
  const excluded = forTable(log.source.excludeColumns, facts) ?? [];
  return new Set(all.filter((name) => !excluded.includes(name)));
}

/** Columns of which the log may hold no value after an update: it was stored apart and left as it was. With identity full there is none. */
function largeValues(facts: TableFacts): readonly string[] {
  const key = identityColumns(facts) ?? [];
  return facts.largeColumns.filter((column) => !key.includes(column));
}

const NUMERIC = 1700;
/** A value of at most so many bytes, its header among them, is never stored apart: MAXALIGN(TOAST_POINTER_SIZE). */
const NEVER_APART_BYTES = 24;

/** Returns true if every value of the type is too small to be stored apart from its row: numerics of few digits. */
function isSmall({ type, typmod }: FoundColumn): boolean {
  if (type !== NUMERIC || typmod < 4) return false;
  const precision = ((typmod - 4) >> 16) & 0xffff;
  const scale = (typmod - 4) & 0x7ff;
  if (scale > precision) return false;
  const groups = Math.ceil((precision - scale) / 4) + Math.ceil(scale / 4);
  return 8 + 2 * groups <= NEVER_APART_BYTES;
}
