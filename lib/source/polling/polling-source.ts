import type pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { formatTable, type TableName, tablePattern } from "../../change/table-pattern.ts";
import type { PipelineOf } from "../../definition/definition.ts";
import { routeTables } from "../../definition/route.ts";
import { batchSource } from "../batch/batch-source.ts";
import type { PreflightProblem } from "../postgres/postgres-errors.ts";
import type { ServerFacts } from "../postgres/preflight/server-facts.ts";
import type { PollingSource } from "./definition.ts";
import { MOST_KEYS } from "./known-keys.ts";
import { comparedTables, type PolledTable, polledTables } from "./polled-table.ts";
import { PollingReader } from "./polling-reader.ts";

/** https://www.postgresql.org/docs/18/errcodes-appendix.html */
const INVALID_PARAMETER_VALUE = "22023";

/** Reads tables by asking them for what is newer. */
export const pollingReads = batchSource<PollingSource, readonly PolledTable[]>({
  checkServer,
  readsExisting: true,
  async checkTables(client, pipeline, _server, captured, tables) {
    const polled = await polledTables(client, pipeline.source, tables);
    const patterns = { problems: checkPatterns(pipeline.source, captured), warnings: [] };
    const deletes = { problems: await checkDeletes(client, pipeline, polled.tables), warnings: [] };
    return { findings: [patterns, polled, deletes], found: polled.tables };
  },
  reader: ({ pipeline, record }, { version }, polled) =>
    new PollingReader(pipeline.source, polled, version, record.reading.keys),
});

/** A slip in a pattern would poll a table by another column than was meant, or look for no deletes. */
function checkPatterns(
  { columns, deletes }: PollingSource,
  captured: readonly TableName[],
): PreflightProblem[] {
  const named = { columns: Object.keys(columns), "deletes.tables": deletes?.tables ?? [] };
  return Object.entries(named).flatMap(([field, patterns]) =>
    patterns
      .filter((pattern) => !captured.some(tablePattern(pattern)))
      .map((pattern) => ({
        code: "TABLE_PATTERN",
        message: `source.${field} names "${pattern}", which is no captured table`,
        remedy: "Correct the pattern, or capture the table.",
      })),
  );
}

/** Checks that a delete can be found, and has a partition: of a row that is gone its primary key alone is known. */
async function checkDeletes(
  client: pg.Client,
  pipeline: PipelineOf<PollingSource>,
  tables: readonly PolledTable[],
): Promise<PreflightProblem[]> {
  const compared = comparedTables(pipeline.source, tables);
  const route = routeTables(pipeline);
  const problems = compared.flatMap(({ name, key }): PreflightProblem[] => {
    const others = route(name).key?.filter((column) => key.every((own) => own.name !== column)) ?? [];
    if (others.length === 0) return [];
    return [
      {
        code: "POLLING_DELETES",
        message: `the partition of ${formatTable(name)} is chosen by ${others.map(quoteIdentifier).join(", ")}, which is not in its primary key: its deletes would have none`,
        remedy: "Leave the table out of source.deletes.tables, or its key out of topics.keys.",
      },
    ];
  });
  const { rows } = await client.query<{ estimate: number }>(
    "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::float8 AS estimate FROM pg_class WHERE oid = ANY ($1::oid[])",
    [compared.map(({ oid }) => oid)],
  );
  const estimate = rows[0]?.estimate ?? 0;
  if (estimate > MOST_KEYS) {
    problems.push({
      code: "POLLING_DELETES",
      message: `the tables whose deletes are looked for hold about ${Math.round(estimate)} rows; ${MOST_KEYS} keys can be held`,
      remedy: "Name the smaller ones alone in source.deletes.tables; the others are polled without.",
    });
  }
  return problems;
}

async function checkServer(
  client: pg.Client,
  { longestTransactionSeconds, timeZone }: PollingSource,
  { standby, user }: ServerFacts,
): Promise<PreflightProblem[]> {
  const problems: PreflightProblem[] = [];
  if (!(await knowsZone(client, timeZone))) {
    problems.push({
      code: "TIME_ZONE",
      message: `the server knows no time zone "${timeZone}" (source.timeZone)`,
      remedy: 'Write one of: SELECT name FROM pg_timezone_names; such as "Europe/Berlin".',
    });
  }
  if (longestTransactionSeconds !== undefined) return problems;
  if (standby) {
    problems.push({
      code: "STANDBY",
      message: "the server is a replica: when transactions of the primary began cannot be seen there",
      remedy:
        "Connect to the primary, or say in source.longestTransactionSeconds how long a transaction lasts at most.",
    });
    return problems;
  }
  const { rows } = await client.query<{ sees: boolean }>(
    "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees",
  );
  if (!rows[0]?.sees) {
    problems.push({
      code: "TRANSACTIONS",
      message: `role "${user}" may not see when others' transactions began`,
      remedy: `GRANT pg_read_all_stats TO ${quoteIdentifier(user)}; or say in source.longestTransactionSeconds how long a transaction lasts at most.`,
    });
  }
  return problems;
}

async function knowsZone(client: pg.Client, name: string): Promise<boolean> {
  try {
    await client.query("SELECT now() AT TIME ZONE $1", [name]);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === INVALID_PARAMETER_VALUE) return false;
    throw error;
  }
}
