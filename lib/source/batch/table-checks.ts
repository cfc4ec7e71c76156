import type { Pipeline } from "../../definition/definition.ts";
import type { PreflightProblem } from "../postgres/postgres-errors.ts";
import type { CheckResult } from "../postgres/preflight/findings.ts";
import { checkKeyColumns } from "../postgres/preflight/key-columns.ts";
import type { ServerFacts } from "../postgres/preflight/server-facts.ts";
import type { TableFacts } from "../postgres/preflight/table-facts.ts";

/** Returns the problems of the server that any source that reads tables would have. */
export function checkTableServer({ version, encoding }: ServerFacts): PreflightProblem[] {
  const problems: PreflightProblem[] = [];
  if (version < 140_000) {
    problems.push({
      code: "SERVER_VERSION",
      message: `the server is PostgreSQL ${Math.trunc(version / 10_000)}`,
      remedy: "Tributary needs PostgreSQL 14 or newer.",
    });
  }
  if (encoding === "SQL_ASCII") {
    problems.push({
      code: "SQL_ASCII",
      message: "the database's encoding is SQL_ASCII: nobody says how its text is to be read",
      remedy: "Read it from the log, which has source.sqlAsciiEncoding, or convert the database.",
    });
  }
  return problems;
}

/** Key columns of sources that see whole rows: they need only be there and not be null. */
export function checkKeysOfWholeRows(
  { topics }: Pick<Pipeline, "topics">,
  tables: readonly TableFacts[],
): CheckResult {
  return checkKeyColumns(
    { topics, source: { excludeColumns: {} } },
    tables.map((table) => ({ ...table, replicaIdentity: "f" })),
    [],
  );
}
