import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable } from "../../../change/table-pattern.ts";
import type { LogPipeline } from "../definition.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import type { ServerFacts } from "./server-facts.ts";
import type { TableFacts } from "./table-facts.ts";

/** Checks that the role may read what it captures: existing rows are read by backfill. */
export function checkReading(
  source: LogPipeline["source"],
  facts: ServerFacts,
  tables: readonly TableFacts[],
): CheckResult {
  const role = quoteIdentifier(facts.user);
  const problems: PreflightProblem[] = [];
  const closed = [...new Set(tables.filter((table) => !table.schemaUsable).map((table) => table.schema))];
  if (closed.length > 0) {
    problems.push({
      code: "SELECT",
      message: `role "${facts.user}" may not use the schema ${closed.join(", ")}`,
      remedy: closed
        .map((schema) => `GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${role};`)
        .join(" "),
    });
  }
  const unreadable = tables.filter((table) => {
    const excluded = forTable(source.excludeColumns, table) ?? [];
    return (
      !table.readable && table.columns.some((column) => !column.readable && !excluded.includes(column.name))
    );
  });
  if (unreadable.length > 0) {
    problems.push({
      code: "SELECT",
      message: `role "${facts.user}" may not read ${unreadable.map(formatTable).join(", ")}`,
      remedy: `GRANT SELECT ON ${unreadable.map(quoteTable).join(", ")} TO ${role};`,
    });
  }
  return { problems, warnings: [] };
}
