import { quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, tablePattern } from "../../../change/table-pattern.ts";
import { captures, type SourceDefinition } from "../../../definition/definition.ts";
import type { LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import type { RelationEntry } from "./table-facts.ts";

/** The tables of a database that a definition captures. */
export interface CapturedTables extends CheckResult {
  /** Tables to publish: ordinary and partitioned ones; of a partition tree the highest captured. */
  readonly tables: readonly RelationEntry[];
  /** The partitions below captured partitioned tables, where rows live. */
  readonly leaves: readonly RelationEntry[];
}

const KINDS: Readonly<Record<string, string>> = {
  f: "a foreign table",
  v: "a view",
  m: "a materialized view",
};

/** Resolves the patterns of a definition. */
export function captureTables(
  source: Pick<SourceDefinition, "tables" | "exclude"> &
    Partial<Pick<LogPipeline["source"], "excludeColumns" | "where">>,
  relations: readonly RelationEntry[],
): CapturedTables {
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const matched = relations.filter((relation) => captures(source, relation));
  const isTable = (relation: RelationEntry) => relation.kind === "r" || relation.kind === "p";

  for (const relation of matched) {
    const why = isTable(relation)
      ? relation.persistence === "u"
        ? "an unlogged table"
        : undefined
      : KINDS[relation.kind];
    if (why === undefined) continue;
    const named = source.tables.some((pattern) => isExact(pattern) && tablePattern(pattern)(relation));
    const finding = {
      code: "TABLE_KIND",
      message: `${formatTable(relation)} is ${why}: its changes are not in the log`,
      remedy:
        relation.persistence === "u" && isTable(relation)
          ? `ALTER TABLE ${quoteTable(relation)} SET LOGGED; or leave it out with source.exclude.`
          : "Name the tables behind it, or leave it out with source.exclude.",
    };
    // Named by hand it is a mistake; matched by a pattern it is passed over, and told.
    if (named) problems.push(finding);
    else if (relation.kind !== "v")
      warnings.push({ ...finding, remedy: `${finding.remedy} It is passed over.` });
  }

  const usable = matched.filter((relation) => isTable(relation) && relation.persistence === "p");
  for (const pattern of source.tables) {
    const matches = tablePattern(pattern);
    if (relations.some((relation) => matches(relation))) continue;
    problems.push(noMatch(pattern, relations));
  }
  if (problems.length === 0 && usable.length === 0 && source.tables.length > 0) {
    problems.push({
      code: "TABLE_PATTERN",
      message: `no table is left to capture: source.exclude takes away all that ${source.tables.join(", ")} matches`,
      remedy: "Correct source.tables or source.exclude.",
    });
  }
  for (const [field, byPattern] of [
    ["excludeColumns", source.excludeColumns],
    ["where", source.where],
  ] as const) {
    for (const pattern of Object.keys(byPattern ?? {})) {
      if (usable.some((table) => tablePattern(pattern)(table))) continue;
      problems.push({
        code: "TABLE_PATTERN",
        message: `source.${field} names "${pattern}", which is no captured table`,
        remedy: "Correct the pattern: a slip here would publish what should stay in the database.",
      });
    }
  }

  const captured = new Set(usable.map((table) => table.oid));
  const tables = usable.filter((table) => !table.ancestors.some((oid) => captured.has(oid)));
  const roots = new Set(tables.filter((table) => table.kind === "p").map((table) => table.oid));
  const below = relations.filter((relation) => relation.ancestors.some((oid) => roots.has(oid)));
  for (const relation of below) {
    const why =
      relation.kind === "f" ? KINDS.f : relation.persistence === "u" ? "an unlogged table" : undefined;
    const accepted = source.exclude.some((pattern) => tablePattern(pattern)(relation));
    if (why === undefined || accepted) continue;
    problems.push({
      code: "TABLE_KIND",
      message: `${formatTable(relation)}, a partition of a captured table, is ${why}: changes of its rows are not in the log`,
      remedy: `${relation.kind === "r" ? `ALTER TABLE ${quoteTable(relation)} SET LOGGED; or accept` : "Accept"} that they are missing by naming it in source.exclude.`,
    });
  }
  const leaves = below.filter((relation) => relation.kind === "r" && relation.persistence === "p");
  return { tables, leaves, problems, warnings };
}

function noMatch(pattern: string, relations: readonly RelationEntry[]): PreflightProblem {
  const base = {
    code: "TABLE_PATTERN",
    message: isExact(pattern)
      ? `table ${pattern} does not exist in this database`
      : `the pattern "${pattern}" matches no table in this database`,
  };
  const tablePart = pattern.slice(pattern.lastIndexOf(".") + 1).replaceAll('"', "");
  const near = relations
    .filter((r) => r.table.toLowerCase() === tablePart.toLowerCase())
    .slice(0, 5)
    .map(formatTable);
  return {
    ...base,
    remedy:
      near.length > 0
        ? `Did you mean ${near.join(" or ")}?`
        : "Correct source.tables; SELECT schemaname, tablename FROM pg_tables; shows what there is. Check that DATABASE_URL names the right database.",
  };
}

function isExact(pattern: string): boolean {
  return !pattern.replace(/"(?:[^"]|"")*"/g, "").includes("*");
}
