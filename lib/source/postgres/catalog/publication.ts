import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import * as z from "zod";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable, type TableName } from "../../../change/table-pattern.ts";
import type { LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { Findings } from "../preflight/findings.ts";
import type { ServerFacts } from "../preflight/server-facts.ts";
import { identityColumns, laterIdentity, type TableFacts } from "../preflight/table-facts.ts";
import { TablesMovedError } from "../slots/slots-errors.ts";

/** Stands at the beginning of the comment on publications that we made, and may therefore change. */
const OUR_COMMENT = "Made by Tributary";

const publishedTable = z.object({
  schema: z.string(),
  table: z.string(),
  columns: z.array(z.string()).nullable(),
  filter: z.string().nullable(),
  filterColumns: z.array(z.string()),
});

const publicationRow = z.object({
  insert: z.boolean(),
  update: z.boolean(),
  delete: z.boolean(),
  truncate: z.boolean(),
  viaRoot: z.boolean(),
  /** 18: `n` none, `s` stored. */
  generated: z.string().nullable(),
  owned: z.boolean(),
  comment: z.string().nullable(),
  tables: z.array(publishedTable),
});

/** A publication as it stands in the catalog. */
export type PublicationFacts = z.output<typeof publicationRow> & {
  readonly name: string;
  readonly ours: boolean;
  /** The pipeline that it was made for, as its comment says; undefined for one that others made. */
  readonly madeFor: string | undefined;
};

/** Reads a publication with what it effectively publishes. */
export async function readPublication(
  client: pg.ClientBase,
  name: string,
  version: number,
): Promise<PublicationFacts | undefined> {
  // Column lists and row filters came with 15.
  const lists = version >= 150_000;
  const { rows } = await client.query(
    `
    SELECT p.pubinsert AS insert, p.pubupdate AS update, p.pubdelete AS delete, p.pubtruncate AS truncate,
           p.pubviaroot AS "viaRoot", to_jsonb(p) ->> 'pubgencols' AS generated,
           pg_has_role(p.pubowner, 'USAGE') AS owned, obj_description(p.oid, 'pg_publication') AS comment,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                     'schema', t.schemaname, 'table', t.tablename,
                     'columns', ${lists ? "to_jsonb(t.attnames)" : "NULL"},
                     'filter', ${lists ? "t.rowfilter" : "NULL"},
                     'filterColumns', ${lists ? FILTER_COLUMNS : "'[]'::jsonb"})), '[]')
              FROM pg_publication_tables t WHERE t.pubname = p.pubname) AS tables
      FROM pg_publication p WHERE p.pubname = $1`,
    [name],
  );
  if (rows.length === 0) return undefined;
  const facts = publicationRow.parse(rows[0]);
  const comment = facts.comment ?? "";
  const madeFor = new RegExp(`^${OUR_COMMENT} for the pipeline "(.*)"$`).exec(comment)?.[1];
  return { ...facts, name, ours: facts.owned && comment.startsWith(OUR_COMMENT), madeFor };
}

/** Columns that a row filter looks at: the Vars of its expression tree. */
const FILTER_COLUMNS = `(
  SELECT coalesce(jsonb_agg(DISTINCT a.attname), '[]')
    FROM pg_publication_rel r
    JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN LATERAL regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') m
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = m[1]::int
   WHERE r.prpubid = p.oid AND n.nspname = t.schemaname AND c.relname = t.tablename)`;

/** What is to be done about the publication before streaming. */
export type PublicationStep =
  | { readonly kind: "use" }
  | { readonly kind: "create"; readonly sql: readonly string[] }
  | {
      readonly kind: "alter";
      readonly sql: readonly string[];
      readonly reason: string;
    };

/** Compares a publication with what the definition wants, and says what to do. */
export function planPublication(
  definition: Pick<LogPipeline, "name" | "source">,
  facts: ServerFacts,
  tables: readonly TableFacts[],
  existing: PublicationFacts | undefined,
): Findings & { readonly step: PublicationStep } {
  const { source } = definition;
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const name = quoteIdentifier(source.publication);
  const wanted = tables.map((table) => tableSql(source, table, facts.version)).join(", ");
  const createSql = [
    `CREATE PUBLICATION ${name}${wanted && ` FOR TABLE ${wanted}`} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true${facts.version >= 180_000 ? ", publish_generated_columns = stored" : ""})`,
    `COMMENT ON PUBLICATION ${name} IS ${pg.escapeLiteral(`${OUR_COMMENT} for the pipeline "${definition.name}"`)}`,
  ];
  if (facts.version < 150_000) {
    for (const field of ["excludeColumns", "where"] as const) {
      if (Object.keys(source[field]).length === 0) continue;
      problems.push({
        code: "SERVER_VERSION",
        message: `source.${field} needs PostgreSQL 15 or newer, and the server is ${Math.floor(facts.version / 10_000)}`,
        remedy: `Remove source.${field}, or upgrade the server.`,
      });
    }
  }

  if (!existing) {
    const foreign = tables.filter((table) => !table.owned);
    if (!facts.superuser && (!facts.mayCreate || foreign.length > 0)) {
      const why = !facts.mayCreate
        ? `role "${facts.user}" may not create in the database`
        : `role "${facts.user}" does not own ${foreign.map(formatTable).join(", ")}`;
      problems.push({
        code: "PUBLICATION",
        message: `the publication "${source.publication}" does not exist, and ${why}`,
        remedy: `As owner of the tables run: ${createSql[0]};`,
      });
    }
    return { problems, warnings, step: { kind: "create", sql: createSql } };
  }

  const off = (["insert", "update", "delete", "truncate"] as const).filter((action) => !existing[action]);
  if (off.length > 0) {
    problems.push({
      code: "PUBLICATION",
      message: `the publication "${source.publication}" does not publish ${off.join(", ")}`,
      remedy: `ALTER PUBLICATION ${name} SET (publish = 'insert, update, delete, truncate');`,
    });
  }
  const partitioned = tables.filter((table) => table.kind === "p");
  if (!existing.viaRoot && partitioned.length > 0) {
    problems.push({
      code: "PUBLICATION",
      message: `the publication "${source.publication}" publishes the partitions of ${partitioned.map(formatTable).join(", ")} one by one`,
      remedy: `ALTER PUBLICATION ${name} SET (publish_via_partition_root = true);`,
    });
  }

  // Without the root option partitions stand in the root's place: what is missing shows when it is set.
  const comparable = existing.viaRoot ? tables : tables.filter((table) => table.kind !== "p");
  const differences = comparable.flatMap((table) => differencesOf(source, facts.version, table, existing));
  const reasons = differences.filter((d) => d.wrong).map((d) => d.message);
  // Only the server can tell whether two filters are the same: it is told again, and undone when nothing changed.
  const filters = tables.some((table) => forTable(source.where, table) !== undefined);
  const mayAlter = existing.ours && (facts.superuser || tables.every((table) => table.owned));
  if (mayAlter && (reasons.length > 0 || filters)) {
    return {
      problems,
      warnings,
      step: {
        kind: "alter",
        sql: [`ALTER PUBLICATION ${name} SET TABLE ${wanted}`],
        reason: inShort(reasons) || "a row filter changed",
      },
    };
  }
  for (const difference of differences) {
    const finding = { code: "PUBLICATION", message: difference.message, remedy: difference.remedy };
    if (difference.wrong) problems.push(finding);
    else warnings.push(finding);
  }
  return { problems, warnings, step: { kind: "use" } };
}

/**
 * Whether what is published leaves the application's own UPDATE and DELETE alone: row filters may look at identity
 * columns only, and (from 18) generated columns of the identity must be published.
 */
export function checkPublishedIdentity(
  publication: PublicationFacts,
  tables: readonly TableFacts[],
  version: number,
): readonly PreflightProblem[] {
  const problems: PreflightProblem[] = [];
  const published = new Map(publication.tables.map((entry) => [formatTable(entry), entry]));
  const byOid = new Map(tables.map((table) => [table.oid, table]));
  for (const table of tables) {
    // The table itself, or the partitioned table above it.
    const family = [table, ...table.ancestors.flatMap((oid) => byOid.get(oid) ?? [])];
    const root = family.map((member) => published.get(formatTable(member))).find((entry) => entry);
    const identity = identityColumns(table) ?? [];
    const outside = (root?.filterColumns ?? []).filter((column) => !identity.includes(column));
    if (outside.length > 0) {
      problems.push({
        code: "ROW_FILTER",
        message: `the row filter of ${formatTable(table)} looks at ${outside.join(", ")}, which is not in its replica identity: the application's own UPDATE and DELETE would fail`,
        remedy: `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL; or filter by columns of the replica identity only.`,
      });
    }
    // Partitions that are made later have another identity than their table says.
    const later = table.kind === "p" && table.replicaIdentity !== "d" ? laterIdentity(table) : undefined;
    const outsideLater = (root?.filterColumns ?? []).filter((column) => later && !later.includes(column));
    if (outside.length === 0 && outsideLater.length > 0) {
      problems.push({
        code: "ROW_FILTER",
        message: `the row filter of ${formatTable(table)} looks at ${outsideLater.join(", ")}, which is not in its primary key, the replica identity of partitions that are made later: the application's own UPDATE and DELETE on those would fail`,
        remedy: "Filter by columns of the primary key only.",
      });
    }
    const generated = table.columns.filter(
      (column) => column.generated === "s" && [...identity, ...(later ?? [])].includes(column.name),
    );
    if (root && version >= 180_000 && publication.generated !== "s" && generated.length > 0) {
      problems.push({
        code: "REPLICA_IDENTITY",
        message: `the publication "${publication.name}" leaves out ${generated.map((c) => c.name).join(", ")} of ${formatTable(table)}, generated and part of its replica identity: the application's own UPDATE and DELETE would fail`,
        remedy: `ALTER PUBLICATION ${quoteIdentifier(publication.name)} SET (publish_generated_columns = stored);`,
      });
    }
  }
  return problems;
}

/** Thrown away on purpose: the transaction of `applyPublication` is rolled back. */
export class PublicationRefused extends Error {
  readonly problems: readonly PreflightProblem[];
  constructor(problems: readonly PreflightProblem[]) {
    super("the publication was not made or changed");
    this.problems = problems;
  }
}

/** Runs one statement; what the server calls wrong with it (a row filter above all) is the definition's. @throws PublicationRefused */
async function execute(client: pg.ClientBase, text: string): Promise<void> {
  try {
    // The extended protocol takes one statement alone, whatever a filter holds. https://www.postgresql.org/docs/current/protocol-flow.html
    const statement: pg.QueryConfig & { readonly queryMode: "extended" } = { text, queryMode: "extended" };
    await client.query(statement);
  } catch (error) {
    // Classes 0A (not supported), 22 (data), 42 (syntax, names, rights). https://www.postgresql.org/docs/current/errcodes-appendix.html
    if (!(error instanceof pg.DatabaseError) || !/^(0A|22|42)/.test(error.code ?? "")) throw error;
    const detail = error.detail ? ` (${error.detail})` : "";
    throw new PublicationRefused([
      {
        code: "PUBLICATION",
        message: `the server refuses the publication: ${error.message}${detail}`,
        remedy: `Correct source.where, or see what is wrong with: ${text.length > 500 ? `${text.slice(0, 500)}…` : text};`,
      },
    ]);
  }
}

/** Less than a lease lasts. */
const PERMITTED_MS = 5_000;

/**
 * Makes or changes the publication in one transaction; nothing stays when it would hurt the application's writes.
 * Tells whether anything changed. `others`: publications of the pipeline's other slots; `permit` is asked right before the
 * commit, and told the transaction: a task that slept after it looked at the tables must not undo what its successor did.
 *
 * @throws PublicationRefused, TablesMovedError, what `permit` throws, or the server's error.
 */
export async function applyPublication(
  client: pg.ClientBase,
  name: string,
  step: PublicationStep,
  tables: readonly TableFacts[],
  version: number,
  { others, permit }: { readonly others: readonly string[]; readonly permit: (xid: string) => Promise<void> },
): Promise<boolean> {
  if (step.kind === "use") return false;
  await client.query("BEGIN");
  try {
    // One that sleeps between the permit and the commit loses its transaction before its lease.
    await client.query(`SET LOCAL idle_in_transaction_session_timeout = ${PERMITTED_MS}`);
    const before = await readPublication(client, name, version);
    for (const sql of step.sql) await execute(client, sql);
    const made = await readPublication(client, name, version);
    const problems = made ? checkPublishedIdentity(made, tables, version) : [];
    if (problems.length > 0) throw new PublicationRefused(problems);
    await refuseShared(client, name, others);
    const changed = !isDeepStrictEqual(before, made);
    if (changed) await permit(await ownTransaction(client));
    await client.query(changed ? "COMMIT" : "ROLLBACK");
    return changed;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
}

/** The number of the open transaction, as `xmin` shows it. */
async function ownTransaction(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ xid: string }>("SELECT pg_current_xact_id()::xid::text AS xid");
  return (rows[0] as { xid: string }).xid;
}

/**
 * A table has one slot: one that another slot has taken meanwhile is not published by two. Adding a table to a publication
 * locks it against being added to another one until the transaction ends, so that one of two sees the other.
 * @throws TablesMovedError
 */
export async function refuseShared(
  client: pg.ClientBase,
  name: string,
  others: readonly string[],
): Promise<void> {
  if (others.length === 0) return;
  const { rows } = await client.query<TableName>(
    `SELECT DISTINCT n.nspname::text AS schema, c.relname::text AS "table"
       FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
       JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE p.pubname = $1 AND EXISTS (
            SELECT FROM pg_publication o JOIN pg_publication_rel s ON s.prpubid = o.oid
             WHERE o.pubname = ANY ($2)
               -- Another pipeline's may be named so: ours say whose they are.
               AND obj_description(o.oid, 'pg_publication') IS NOT DISTINCT FROM obj_description(p.oid, 'pg_publication')
               AND (s.prrelid = r.prrelid
                    OR s.prrelid IN (SELECT relid FROM pg_partition_ancestors(r.prrelid))
                    OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(s.prrelid))))`,
    [name, others],
  );
  if (rows.length > 0) throw new TablesMovedError(name, rows.map(formatTable));
}

interface Difference {
  /** Must not stay so; otherwise a warning. */
  readonly wrong: boolean;
  readonly message: string;
  readonly remedy: string;
}

function differencesOf(
  source: LogPipeline["source"],
  version: number,
  table: TableFacts,
  existing: PublicationFacts,
): Difference[] {
  const name = quoteIdentifier(source.publication);
  const sql = tableSql(source, table, version);
  const published = publishedAs(existing, table);
  if (!published) {
    return [
      {
        wrong: true,
        message: `the publication "${source.publication}" does not hold ${formatTable(table)}`,
        remedy: `ALTER PUBLICATION ${name} ADD TABLE ${sql};`,
      },
    ];
  }
  const replace = `ALTER PUBLICATION ${name} DROP TABLE ${quoteTable(table)}; ALTER PUBLICATION ${name} ADD TABLE ${sql};`;
  const differences: Difference[] = [];
  const excluded = forTable(source.excludeColumns, table) ?? [];
  const leaking = (published.columns ?? []).filter((column) => excluded.includes(column));
  if (leaking.length > 0) {
    differences.push({
      wrong: true,
      message: `the publication "${source.publication}" publishes ${leaking.join(", ")} of ${formatTable(table)}, which source.excludeColumns leaves out`,
      remedy: replace,
    });
  }
  const missing = publishable(table, existing.generated === "s" ? version : 0).filter(
    (column) =>
      published.columns !== null && !published.columns.includes(column) && !excluded.includes(column),
  );
  if (missing.length > 0) {
    differences.push({
      wrong: existing.ours,
      message: `the publication "${source.publication}" leaves out ${missing.join(", ")} of ${formatTable(table)}, and the definition does not`,
      remedy: replace,
    });
  }
  const filter = forTable(source.where, table);
  if (filter !== undefined && published.filter === null) {
    differences.push({
      wrong: true,
      message: `the publication "${source.publication}" publishes all rows of ${formatTable(table)}, and source.where filters them`,
      remedy: replace,
    });
  }
  if (filter === undefined && published.filter !== null) {
    differences.push({
      wrong: existing.ours,
      message: `the publication "${source.publication}" filters the rows of ${formatTable(table)}, and the definition does not`,
      remedy: replace,
    });
  }
  return differences;
}

/** The first few, and how many more. */
function inShort(reasons: readonly string[]): string {
  const [first, rest] = [reasons.slice(0, 5), reasons.length - 5];
  return first.join("; ") + (rest > 0 ? `; and ${rest} more` : "");
}

/** Whether a publication holds a table now. */
export function publishes(publication: PublicationFacts | undefined, table: TableName): boolean {
  return publication !== undefined && publishedAs(publication, table) !== undefined;
}

function publishedAs(publication: PublicationFacts, table: TableName) {
  return publication.tables.find((t) => t.schema === table.schema && t.table === table.table);
}

/** Columns that this server publishes when no list says otherwise (stored generated ones from 18, in lists). */
function publishable(table: TableFacts, version: number): string[] {
  return table.columns
    .filter((column) => column.generated === "" || (column.generated === "s" && version >= 180_000))
    .map((column) => column.name);
}

/** A table as a publication's list names it, with its columns and row filter. */
export function tableSql(
  source: Pick<LogPipeline["source"], "excludeColumns" | "where">,
  table: TableFacts,
  version: number,
): string {
  const excluded = forTable(source.excludeColumns, table);
  const filter = forTable(source.where, table);
  const columns = excluded
    ? ` (${publishable(table, version)
        .filter((column) => !excluded.includes(column))
        .map(quoteIdentifier)
        .join(", ")})`
    : "";
  // ONLY: children by inheritance have keys of their own, or none; partitions come with their root all the same.
  return `${table.kind === "r" ? "ONLY " : ""}${quoteTable(table)}${columns}${filter === undefined ? "" : ` WHERE (${filter})`}`;
}
