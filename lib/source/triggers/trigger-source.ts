import type pg from "pg";
import type { ChangeStream } from "../../change/change-stream.ts";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { PipelineOf } from "../../definition/definition.ts";
import { BatchStream } from "../batch/batch-stream.ts";
import { checkKeysOfWholeRows, checkTableServer } from "../batch/table-checks.ts";
import { withConnection } from "../postgres/link/connection.ts";
import { PreflightError, type PreflightProblem } from "../postgres/postgres-errors.ts";
import { captureTables } from "../postgres/preflight/captured-tables.ts";
import { gather } from "../postgres/preflight/findings.ts";
import { readServerFacts, type ServerFacts } from "../postgres/preflight/server-facts.ts";
import { readRelations, readTables, type TableFacts } from "../postgres/preflight/table-facts.ts";
import type { SourceCheck, SourceOptions } from "../source-kind.ts";
import type { TriggersSource } from "./definition.ts";
import { INSTALL, isFunctionCurrent, readTriggers } from "./installed.ts";
import { TriggerReader } from "./trigger-reader.ts";

type Definition = PipelineOf<TriggersSource>;

interface Report {
  readonly tables: readonly TableName[];
  readonly server: ServerFacts;
  readonly warnings: readonly PreflightProblem[];
}

/**
 * Looks whether the triggers are there for all that the definition captures; touches nothing.
 * @throws PreflightError with all problems, and the errors of `connect`.
 */
export async function checkTriggers(
  options: SourceCheck & { readonly pipeline: Definition },
): Promise<Report> {
  return await withConnection(options.connection, { signal: options.signal }, (client) =>
    look(client, options.pipeline),
  );
}

/** Opens the audit table of a pipeline. @throws what `checkTriggers` and `BatchStream.open` throw. */
export async function openTriggerSource(
  options: SourceOptions & { readonly pipeline: Definition },
): Promise<ChangeStream> {
  const { pipeline, record, log } = options;
  const { server, warnings } = await checkTriggers(options);
  for (const { code, message, remedy } of warnings) log.warn(message, { code, remedy });
  const reader = new TriggerReader(pipeline, { version: server.version, log });
  return await BatchStream.open({
    ...options,
    record: record.reading,
    reader,
    intervalMs: pipeline.source.intervalMs,
  });
}

async function look(client: pg.Client, pipeline: Definition): Promise<Report> {
  const { source } = pipeline;
  const server = await readServerFacts(client);
  const captured = captureTables(pipeline.source, await readRelations(client));
  const tables = await readTables(client, captured.tables);
  const { problems, warnings } = gather([
    { problems: checkServer(server), warnings: [] },
    captured,
    checkKeysOfWholeRows(pipeline, tables),
    { problems: await checkInstalled(client, source, tables, server), warnings: [] },
    { problems: [], warnings: await checkVersion(client, source) },
  ]);
  if (problems.length > 0) throw new PreflightError(problems);
  return { tables, server, warnings };
}

function checkServer(server: ServerFacts): PreflightProblem[] {
  const problems = checkTableServer(server);
  if (server.standby) {
    problems.push({
      code: "STANDBY",
      message: "the server is a standby: what was read cannot be deleted from the audit table there",
      remedy: "Connect to the primary.",
    });
  }
  return problems;
}

async function checkVersion(client: pg.Client, { schema }: TriggersSource): Promise<PreflightProblem[]> {
  if (await isFunctionCurrent(client, schema)) return [];
  return [
    {
      code: "TRIGGERS_VERSION",
      message: `the function "${schema}".capture is not that of this version: what it writes is read, with the faults it had`,
      remedy: `As the owner of the tables: ${INSTALL}`,
    },
  ];
}

async function checkInstalled(
  client: pg.Client,
  { schema }: TriggersSource,
  tables: readonly TableFacts[],
  { user }: ServerFacts,
): Promise<PreflightProblem[]> {
  const { rows } = await client.query<{ there: boolean; readable: boolean }>(
    `SELECT to_regclass($1) IS NOT NULL AS there,
            has_table_privilege(to_regclass($1), 'SELECT') AND has_table_privilege(to_regclass($1), 'DELETE')
              AND has_table_privilege(to_regclass($2), 'SELECT') AS readable`,
    ["changes", "shapes"].map((table) => `${quoteIdentifier(schema)}.${table}`),
  );
  // to_regclass gives null too where the schema may not be used.
  if (!rows[0]?.there || !rows[0].readable) {
    return [
      {
        code: "AUDIT_TABLE",
        message: `there is no audit table "${schema}".changes that role "${user}" may read and delete from`,
        remedy: `As the owner of the tables: ${INSTALL} --reader ${user}`,
      },
    ];
  }
  const whole = new Set((await readTriggers(client, schema)).filter((t) => t.whole).map(formatTable));
  const missing = tables.map(formatTable).filter((name) => !whole.has(name));
  if (missing.length === 0) return [];
  return [
    {
      code: "TRIGGERS",
      message: `no triggers, or triggers that do not always fire, are on ${missing.join(", ")}: changes there would be missing`,
      remedy: `As the owner of the tables: ${INSTALL}; or leave them out with source.exclude.`,
    },
  ];
}
