import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable, type TableName, tablePattern } from "../../../change/table-pattern.ts";
import type { LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import { partitionsOf } from "./replica-identity.ts";
import { identityColumns, type TableFacts } from "./table-facts.ts";

/**
 * Checks that the key columns that the definition chose stand in every delete: in the replica identity and NOT NULL
 * (rule 4). Otherwise a delete would have no partition.
 */
export function checkKeyColumns(
  definition: {
    readonly source: Pick<LogPipeline["source"], "excludeColumns">;
    readonly topics: Pick<LogPipeline["topics"], "keys">;
  },
  tables: readonly TableFacts[],
  leaves: readonly TableFacts[],
  /** Over all slots. */
  captured: readonly TableName[] = tables,
): CheckResult {
  const problems: PreflightProblem[] = [];
  const problem = (message: string, remedy: string) => problems.push({ code: "KEY_COLUMN", message, remedy });

  for (const pattern of Object.keys(definition.topics.keys)) {
    if (!captured.some((table) => tablePattern(pattern)(table)))
      problem(`topics.keys names "${pattern}", which is no captured table`, "Correct the pattern.");
  }
  for (const table of tables) {
    const excluded = forTable(definition.source.excludeColumns, table) ?? [];
    for (const name of forTable(definition.topics.keys, table) ?? []) {
      const column = table.columns.find((candidate) => candidate.name === name);
      const [sql, id] = [quoteTable(table), quoteIdentifier(name)];
      if (!column) {
        problem(`topics.keys: ${formatTable(table)} has no column "${name}"`, "Correct the column's name.");
        continue;
      }
      if (excluded.includes(name)) {
        problem(
          `topics.keys: "${name}" of ${formatTable(table)} is left out by source.excludeColumns`,
          "Keep the column, or choose another key.",
        );
      }
      if (!column.notNull) {
        problem(
          `topics.keys: "${name}" of ${formatTable(table)} may be null: a row without it has no partition of its own`,
          `ALTER TABLE ${sql} ALTER COLUMN ${id} SET NOT NULL;`,
        );
      }
      const lacking = [table, ...partitionsOf(table, leaves)].filter(
        (member) => !(identityColumns(member) ?? []).includes(name),
      );
      for (const member of lacking) {
        const key = [...new Set([...member.primaryKey, name])].map(quoteIdentifier).join(", ");
        problem(
          `topics.keys: "${name}" is not in the replica identity of ${formatTable(member)}: a delete would have no partition`,
          `ALTER TABLE ${quoteTable(member)} REPLICA IDENTITY FULL; or a unique index over ${key} as identity: CREATE UNIQUE INDEX CONCURRENTLY … ON ${quoteTable(member)} (${key}); ALTER TABLE ${quoteTable(member)} REPLICA IDENTITY USING INDEX …;`,
        );
      }
    }
  }
  return { problems, warnings: [] };
}
