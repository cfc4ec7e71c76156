import pg from "pg";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable } from "../../../change/table-pattern.ts";
import { isTailsOwn, type LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "../preflight/findings.ts";
import type { ServerFacts } from "../preflight/server-facts.ts";
import type { TableFacts } from "../preflight/table-facts.ts";
import { OUR_COMMENT, type PublicationFacts, publishedAs } from "./publication.ts";

/** The step that brings the publication to what the definition wants, before streaming. */
export type PublicationStep =
  | { readonly kind: "use" }
  | { readonly kind: "create"; readonly sql: readonly string[] }
  | {
      readonly kind: "alter";
      readonly sql: readonly string[];
      readonly reason: string;
      readonly tables: ChangedTables;
      /** False: only row filters are told again, and the server alone can tell whether they are new. */
      readonly differs: boolean;
    };

/** Tables, as people write them, that a step gives to a publication, takes from it, and publishes in another way. */
export interface ChangedTables {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

/** Compares a publication with what the definition wants, and says what to do. */
export function planPublication(
  definition: Pick<LogPipeline, "name" | "source">,
  facts: ServerFacts,
  tables: readonly TableFacts[],
  existing: PublicationFacts | undefined,
): CheckResult & { readonly step: PublicationStep } {
  const { source } = definition;
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const name = quoteIdentifier(source.publication);
  const list = tables.map((table) => tableSql(source, table, facts.version));
  const wanted = list.join(", ");
  const createSql = createPublicationSql(definition, list, facts.version);
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
        sql: isTailsOwn(source.publication)
          ? growSql(name, differences, tables, existing, (table) => tableSql(source, table, facts.version))
          : [`ALTER PUBLICATION ${name} SET TABLE ${wanted}`],
        reason: inShort(reasons) || "a row filter changed",
        tables: changedTables(source.publication, differences, tables, existing),
        differs: reasons.length > 0,
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

/** The statements that make a publication of a list of tables, as `tableSql` writes each, and say that it is ours. */
export function createPublicationSql(
  { name: pipeline, source }: Pick<LogPipeline, "name" | "source">,
  list: readonly string[],
  version: number,
): readonly [create: string, comment: string] {
  const name = quoteIdentifier(source.publication);
  const tables = list.length > 0 ? ` FOR TABLE ${list.join(", ")}` : "";
  return [
    `CREATE PUBLICATION ${name}${tables} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true${version >= 180_000 ? ", publish_generated_columns = stored" : ""})`,
    `COMMENT ON PUBLICATION ${name} IS ${pg.escapeLiteral(`${OUR_COMMENT} for the pipeline "${pipeline}"`)}`,
  ];
}

/** All slots of tail's share its publication: what a slot that stays has to print of other tables must not leave it. */
function growSql(
  name: string,
  differences: readonly TableDifference[],
  tables: readonly TableFacts[],
  existing: PublicationFacts,
  sqlOf: (table: TableFacts) => string,
): string[] {
  const wrong = tables.filter((table) => differences.some((d) => d.wrong && d.table === table));
  const dropped = wrong.filter((table) => publishedAs(existing, table)).map(quoteTable);
  return [
    ...(dropped.length > 0 ? [`ALTER PUBLICATION ${name} DROP TABLE ${dropped.join(", ")}`] : []),
    `ALTER PUBLICATION ${name} ADD TABLE ${wrong.map(sqlOf).join(", ")}`,
  ];
}

function changedTables(
  publication: string,
  differences: readonly TableDifference[],
  tables: readonly TableFacts[],
  existing: PublicationFacts,
): ChangedTables {
  const wrong = new Set(differences.filter((d) => d.wrong).map(({ table }) => table));
  const wanted = new Set(tables.map(formatTable));
  return {
    added: [...wrong].filter((table) => !publishedAs(existing, table)).map(formatTable),
    removed: isTailsOwn(publication)
      ? []
      : existing.tables.map(formatTable).filter((table) => !wanted.has(table)),
    changed: [...wrong].filter((table) => publishedAs(existing, table)).map(formatTable),
  };
}

interface TableDifference {
  readonly table: TableFacts;
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
): TableDifference[] {
  const name = quoteIdentifier(source.publication);
  const sql = tableSql(source, table, version);
  const published = publishedAs(existing, table);
  if (!published) {
    return [
      {
        table,
        wrong: true,
        message: `the publication "${source.publication}" does not hold ${formatTable(table)}`,
        remedy: `ALTER PUBLICATION ${name} ADD TABLE ${sql};`,
      },
    ];
  }
  const replace = `ALTER PUBLICATION ${name} DROP TABLE ${quoteTable(table)}; ALTER PUBLICATION ${name} ADD TABLE ${sql};`;
  const differences: TableDifference[] = [];
  const excluded = forTable(source.excludeColumns, table) ?? [];
  const leaking = (published.columns ?? []).filter((column) => excluded.includes(column));
  if (leaking.length > 0) {
    differences.push({
      table,
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
      table,
      wrong: existing.ours,
      message: `the publication "${source.publication}" leaves out ${missing.join(", ")} of ${formatTable(table)}, and the definition does not`,
      remedy: replace,
    });
  }
  const filter = forTable(source.where, table);
  if (filter !== undefined && published.filter === null) {
    differences.push({
      table,
      wrong: true,
      message: `the publication "${source.publication}" publishes all rows of ${formatTable(table)}, and source.where filters them`,
      remedy: replace,
    });
  }
  if (filter === undefined && published.filter !== null) {
    differences.push({
      table,
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

/** Columns that this server publishes when no list says otherwise (stored generated ones from 18, in lists). */
export function publishable(table: TableFacts, version: number): string[] {
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
