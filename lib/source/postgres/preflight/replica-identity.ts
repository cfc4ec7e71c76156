import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable } from "../../../change/table-pattern.ts";
import type { LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import { identityColumns, laterIdentity, type TableFacts } from "./table-facts.ts";

/**
 * Checks that publishing these tables leaves the application's own UPDATE and DELETE alone: PostgreSQL refuses them
 * on a published table that has no replica identity. `tables` are those to publish, `leaves` the partitions below.
 * https://www.postgresql.org/docs/current/logical-replication-publication.html
 */
export function checkReplicaIdentity(
  source: LogPipeline["source"],
  tables: readonly TableFacts[],
  leaves: readonly TableFacts[],
  version: number,
  topics: Pick<LogPipeline["topics"], "keys">,
): CheckResult {
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const rowsLiveIn = [...tables.filter((table) => table.kind === "r"), ...leaves];

  const without = [...tables, ...leaves].filter((table) => identityColumns(table) === undefined);
  for (const table of without) {
    const why =
      table.replicaIdentity === "n"
        ? "its replica identity is NOTHING"
        : table.replicaIdentity === "i"
          ? "the index of its replica identity was dropped"
          : table.primaryKeyDeferrable
            ? "its primary key is deferrable"
            : "it has no primary key";
    problems.push({
      code: "REPLICA_IDENTITY",
      message: `${formatTable(table)} has no replica identity (${why}): published, the application's own UPDATE and DELETE on it would fail`,
      remedy: identityRemedy(table),
    });
  }
  for (const table of rowsLiveIn) {
    if (table.replicaIdentity !== "f") continue;
    const virtual = table.columns.filter((column) => column.generated === "v").map((column) => column.name);
    if (version >= 180_000 && virtual.length > 0) {
      problems.push({
        code: "REPLICA_IDENTITY",
        message: `${formatTable(table)} has REPLICA IDENTITY FULL and virtual generated columns (${virtual.join(", ")}): published, the application's own UPDATE and DELETE on it would fail`,
        remedy:
          table.primaryKey.length > 0 && !table.primaryKeyDeferrable
            ? `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY DEFAULT;`
            : `ALTER TABLE ${quoteTable(table)} ADD PRIMARY KEY (…); ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY DEFAULT;`,
      });
    }
  }
  for (const table of [...tables, ...leaves]) problems.push(...generatedKeyProblems(table, version, topics));
  for (const root of tables.filter((table) => table.kind === "p")) {
    for (const leaf of partitionsOf(root, leaves)) problems.push(...partitionIdentityProblems(root, leaf));
    if (root.replicaIdentity === "d") continue;
    if (laterIdentity(root) === undefined) {
      problems.push({
        code: "PARTITION_IDENTITY",
        message: `${formatTable(root)} has no primary key, and PostgreSQL gives its replica identity to no partition that is made later: published, the application's own UPDATE and DELETE on those would fail`,
        remedy: `ALTER TABLE ${quoteTable(root)} ADD PRIMARY KEY (…); its partitions have it then, and later ones too. Or leave it out with source.exclude.`,
      });
      continue;
    }
    warnings.push({
      code: "PARTITION_IDENTITY",
      message: `${formatTable(root)} has a replica identity that PostgreSQL does not give to partitions made later`,
      remedy: `With each new partition run: ALTER TABLE … REPLICA IDENTITY ${root.replicaIdentity === "f" ? "FULL" : "USING INDEX …"};`,
    });
  }
  for (const table of tables) {
    if (table.replicaIdentity === "f" && table.primaryKey.length === 0) {
      warnings.push({
        code: "NO_KEY",
        message: `${formatTable(table)} has no primary key: all its changes go to one partition`,
        remedy: `ALTER TABLE ${quoteTable(table)} ADD PRIMARY KEY (…); or choose key columns with topics.keys, before the first start.`,
      });
    }
    const generated = table.columns.filter(
      (column) => column.generated === "v" || (column.generated === "s" && version < 180_000),
    );
    if (generated.length > 0) {
      warnings.push({
        code: "GENERATED_COLUMNS",
        message: `${formatTable(table)}: generated columns do not travel (${generated.map((c) => c.name).join(", ")})`,
        remedy: "Compute them in the consumer; PostgreSQL 18 publishes stored ones.",
      });
    }
    if (table.rowSecurity) {
      warnings.push({
        code: "ROW_SECURITY",
        message: `${formatTable(table)} has row-level security: the log holds all rows, policies do not apply to changes`,
        remedy:
          "Filter with source.where what must not leave the database. To read existing rows the role needs BYPASSRLS, or reading stops with an error.",
      });
    }
    problems.push(...excludedColumnProblems(source, table, [table, ...partitionsOf(table, leaves)]));
  }
  return { problems, warnings };
}

/** A generated column of the key does not travel before 18: rows would be told apart by the rest of it. */
function generatedKeyProblems(
  table: TableFacts,
  version: number,
  { keys }: Pick<LogPipeline["topics"], "keys">,
): PreflightProblem[] {
  if (version >= 180_000) return [];
  const own = table.replicaIdentity === "f" ? table.primaryKey : (identityColumns(table) ?? []);
  const key = [...own, ...(forTable(keys, table) ?? [])];
  const generated = table.columns.filter(({ generated, name }) => generated !== "" && key.includes(name));
  if (generated.length === 0) return [];
  const names = generated.map((column) => column.name).join(", ");
  return [
    {
      code: "KEY_GENERATED",
      message: `the key of ${formatTable(table)} has the generated column ${names}, whose values PostgreSQL does not send before 18: events would not tell which row is meant`,
      remedy: `A unique index over other NOT NULL columns as identity: ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY USING INDEX …; or PostgreSQL 18; or leave the table out with source.exclude.`,
    },
  ];
}

/** Checks that a partition logs all of old rows that its root says: the server fills the rest with nulls. */
function partitionIdentityProblems(root: TableFacts, leaf: TableFacts): PreflightProblem[] {
  const [promised, logged] = [identityColumns(root), identityColumns(leaf)];
  // Without any, both were named above.
  if (!promised || !logged || leaf.replicaIdentity === "f") return [];
  const lacking = promised.filter((column) => !logged.includes(column));
  if (root.replicaIdentity !== "f" && lacking.length === 0) return [];
  const remedy =
    root.replicaIdentity === "f"
      ? `ALTER TABLE ${quoteTable(leaf)} REPLICA IDENTITY FULL;`
      : `ALTER TABLE ${quoteTable(leaf)} REPLICA IDENTITY USING INDEX …; (the partition's part of its root's index)`;
  return [
    {
      code: "PARTITION_IDENTITY",
      message: `${formatTable(leaf)} has another replica identity than ${formatTable(root)}, whose partition it is: old rows would arrive without ${lacking.join(", ") || "their values"}`,
      remedy: `${remedy} ALTER TABLE on the partitioned table does not reach its partitions.`,
    },
  ];
}

/** The partitions of a table among the leaves. */
export function partitionsOf(table: TableFacts, leaves: readonly TableFacts[]): readonly TableFacts[] {
  return leaves.filter((leaf) => leaf.ancestors.includes(table.oid));
}

function excludedColumnProblems(
  source: LogPipeline["source"],
  table: TableFacts,
  family: readonly TableFacts[],
): PreflightProblem[] {
  const excluded = forTable(source.excludeColumns, table);
  if (!excluded) return [];
  const problems: PreflightProblem[] = [];
  for (const name of excluded) {
    if (table.columns.some((column) => column.name === name)) continue;
    problems.push({
      code: "EXCLUDED_COLUMN",
      message: `source.excludeColumns names "${name}", and ${formatTable(table)} has no such column`,
      remedy: "Correct the column's name: a slip here would publish what should stay in the database.",
    });
  }
  const later = table.kind === "p" && table.replicaIdentity !== "d" ? (laterIdentity(table) ?? []) : [];
  const inLater = later.filter((name) => excluded.includes(name));
  if (inLater.length > 0) {
    problems.push({
      code: "EXCLUDED_COLUMN",
      message: `source.excludeColumns leaves out ${inLater.join(", ")} of ${formatTable(table)}, which is in its primary key, the replica identity of partitions that are made later: the application's own UPDATE and DELETE on those would fail`,
      remedy: "Keep the columns of the primary key.",
    });
  }
  for (const member of family) {
    const inIdentity = (identityColumns(member) ?? []).filter((name) => excluded.includes(name));
    if (inIdentity.length === 0 && member.replicaIdentity !== "f") continue;
    problems.push({
      code: "EXCLUDED_COLUMN",
      message:
        member.replicaIdentity === "f"
          ? `${formatTable(member)} has REPLICA IDENTITY FULL, which PostgreSQL does not combine with left-out columns: the application's own UPDATE and DELETE would fail`
          : `source.excludeColumns leaves out ${inIdentity.join(", ")} of ${formatTable(member)}, which its replica identity needs: the application's own UPDATE and DELETE would fail`,
      remedy:
        member.replicaIdentity === "f"
          ? `ALTER TABLE ${quoteTable(member)} REPLICA IDENTITY DEFAULT; or remove the table from source.excludeColumns.`
          : "Keep the columns of the replica identity.",
    });
  }
  return problems;
}

function identityRemedy(table: TableFacts): string {
  const name = quoteTable(table);
  if (table.primaryKey.length > 0 && !table.primaryKeyDeferrable)
    return `ALTER TABLE ${name} REPLICA IDENTITY DEFAULT;`;
  if (table.primaryKeyDeferrable)
    return `ALTER TABLE ${name} REPLICA IDENTITY FULL; or make the primary key anew, NOT DEFERRABLE. Or leave the table out with source.exclude.`;
  // What is said of a partitioned table reaches no partition, but for its primary key.
  if (table.kind === "p")
    return `ALTER TABLE ${name} ADD PRIMARY KEY (…); its partitions have it then. Or leave it out with source.exclude.`;
  const candidate = table.columns.find((column) => column.notNull)?.name;
  const index = candidate
    ? ` Or, where a unique index over NOT NULL columns exists: ALTER TABLE ${name} REPLICA IDENTITY USING INDEX ${quoteIdentifier("…")};`
    : "";
  return `ALTER TABLE ${name} REPLICA IDENTITY FULL; or better: ALTER TABLE ${name} ADD PRIMARY KEY (…);${index} Or leave it out with source.exclude.`;
}
