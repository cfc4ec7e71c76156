import pg from "pg";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { PipelineOf } from "../../pipeline.ts";
import { logPipeline } from "../batches/log-pipeline.ts";
import type { TriggersSource } from "../definition.ts";
import { PreflightError } from "../postgres/errors.ts";
import { captureTables, quoteIdentifier } from "../postgres/preflight/captured-tables.ts";
import { readRelations } from "../postgres/preflight/table-facts.ts";
import {
  AUDIT_COMMENT,
  auditSchemaSql,
  captureFunctionBody,
  dropTriggersSql,
  ROW_TRIGGER,
  readerGrantsSql,
  TRUNCATE_TRIGGER,
  tableTriggersSql,
} from "./audit-sql.ts";
import { TriggersRefusedError } from "./errors.ts";

/** What `tributary triggers` would do. */
export interface TriggersPlan {
  /** Tables that the definition captures. */
  readonly tables: readonly TableName[];
  /** Of those, the ones whose triggers are missing or do not always fire. */
  readonly missing: readonly TableName[];
  /** Tables with our triggers that the definition does not capture any more. */
  readonly surplus: readonly TableName[];
  /** `none`, `ours`, or a schema of that name that we did not make. */
  readonly schema: "none" | "ours" | "foreign";
  /** Whether the function that the triggers call is the one of this version. */
  readonly current: boolean;
  /** Changes that stand in the audit table. */
  readonly waiting: number;
  /** The statements in their order; they may be run again. */
  readonly sql: readonly string[];
}

type Definition = PipelineOf<TriggersSource>;

/**
 * What installing the triggers of a definition takes. Touches nothing.
 * @throws PreflightError where a table cannot be captured or the schema belongs to something else.
 */
export async function planTriggers(
  client: pg.Client,
  pipeline: Definition,
  reader: string | undefined,
): Promise<TriggersPlan> {
  const { source } = pipeline;
  const { tables, problems } = captureTables(logPipeline(pipeline).source, await readRelations(client));
  const schema = await readSchema(client, source.schema);
  if (schema === "foreign") {
    throw new PreflightError([
      {
        code: "AUDIT_SCHEMA",
        message: `the schema "${source.schema}" exists, and Tributary did not make it`,
        remedy: "Name another one in source.schema of the definition.",
      },
    ]);
  }
  if (problems.length > 0) throw new PreflightError(problems);
  const installed = await readTriggers(client, source.schema);
  const names = tables.map(({ schema: s, table }) => ({ schema: s, table }));
  const has = (list: readonly TableName[], name: TableName) =>
    list.some((other) => formatTable(other) === formatTable(name));
  const whole = installed.filter((table) => table.whole);
  const surplus = installed.filter((table) => !has(names, table));
  return {
    tables: names,
    missing: names.filter((name) => !has(whole, name)),
    surplus,
    schema,
    current: await isFunctionCurrent(client, source.schema),
    waiting: schema === "ours" ? await readWaiting(client, source.schema) : 0,
    sql: [
      ...auditSchemaSql(source.schema),
      ...names.flatMap((name) => tableTriggersSql(source.schema, name)),
      ...surplus.flatMap(dropTriggersSql),
      ...(reader === undefined ? [] : readerGrantsSql(source.schema, reader)),
    ],
  };
}

/**
 * Installs the triggers, or brings them up to date: in one transaction, so that there is never half of it. Waits for the
 * transactions that write to the tables now, at most `lockTimeoutMs` for each.
 * @throws TriggersRefusedError, and what `planTriggers` throws; nothing was changed then.
 */
export async function installTriggers(
  client: pg.Client,
  pipeline: Definition,
  { reader, lockTimeoutMs }: { readonly reader?: string | undefined; readonly lockTimeoutMs: number },
): Promise<TriggersPlan> {
  const plan = await planTriggers(client, pipeline, reader);
  await inTransaction(client, lockTimeoutMs, plan.sql);
  return plan;
}

/** What removing them takes. Touches nothing. */
export async function planUninstall(client: pg.Client, { source }: Definition): Promise<TriggersPlan> {
  const schema = await readSchema(client, source.schema);
  const tables = schema === "ours" ? await readTriggers(client, source.schema) : [];
  const s = quoteIdentifier(source.schema);
  return {
    tables,
    missing: [],
    surplus: tables,
    schema,
    current: true,
    waiting: schema === "ours" ? await readWaiting(client, source.schema) : 0,
    sql:
      schema === "ours"
        ? [
            ...tables.flatMap(dropTriggersSql),
            // Without CASCADE: what others have put there stays, and this fails.
            `DROP FUNCTION ${s}.capture()`,
            `DROP TABLE ${s}.changes, ${s}.shapes`,
            `DROP SEQUENCE ${s}.change_id`,
            `DROP SCHEMA ${s}`,
          ]
        : [],
  };
}

/** Removes triggers, function and audit table, with what stands in it. @throws TriggersRefusedError; nothing was changed then. */
export async function uninstallTriggers(
  client: pg.Client,
  pipeline: Definition,
  { lockTimeoutMs }: { readonly lockTimeoutMs: number },
): Promise<TriggersPlan> {
  const plan = await planUninstall(client, pipeline);
  await inTransaction(client, lockTimeoutMs, plan.sql);
  return plan;
}

/** The tables that have our triggers; `whole`: both of them, and they always fire. */
export async function readTriggers(
  client: pg.ClientBase,
  schema: string,
): Promise<readonly (TableName & { readonly whole: boolean })[]> {
  const { rows } = await client.query<TableName & { whole: boolean }>(
    `SELECT n.nspname::text AS schema, c.relname::text AS "table",
            count(*) FILTER (WHERE t.tgenabled = 'A' AND t.tgname IN ($2, $3)) = 2 AS whole
       FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
      WHERE f.nspname = $1 AND p.proname = 'capture' AND t.tgparentid = 0
      GROUP BY 1, 2 ORDER BY 1, 2`,
    [schema, ROW_TRIGGER, TRUNCATE_TRIGGER],
  );
  return rows;
}

/** Whether the function that the triggers call is the one of this version; what an older one wrote is read as well. */
export async function isFunctionCurrent(client: pg.ClientBase, schema: string): Promise<boolean> {
  const { rows } = await client.query<{ body: string }>(
    `SELECT p.prosrc AS body FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = $1 AND p.proname = 'capture' AND p.pronargs = 0`,
    [schema],
  );
  return rows[0]?.body === captureFunctionBody(schema);
}

async function readSchema(client: pg.ClientBase, schema: string): Promise<TriggersPlan["schema"]> {
  const { rows } = await client.query<{ comment: string | null }>(
    "SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace WHERE nspname = $1",
    [schema],
  );
  if (rows.length === 0) return "none";
  return rows[0]?.comment === AUDIT_COMMENT ? "ours" : "foreign";
}

async function readWaiting(client: pg.ClientBase, schema: string): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `SELECT count(*)::float8 AS count FROM ${quoteIdentifier(schema)}.changes`,
  );
  return rows[0]?.count ?? 0;
}

async function inTransaction(
  client: pg.Client,
  lockTimeoutMs: number,
  sql: readonly string[],
): Promise<void> {
  if (sql.length === 0) return;
  await client.query("BEGIN");
  try {
    await client.query(`SET LOCAL lock_timeout = ${Math.trunc(lockTimeoutMs)}`);
    for (const statement of sql) await client.query(statement);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error instanceof pg.DatabaseError ? refused(error) : error;
  }
}

function refused(error: pg.DatabaseError): TriggersRefusedError {
  const remedies: Readonly<Record<string, string>> = {
    "42501": "Run it as the owner of the tables, with CREATE on the database.",
    "55P03":
      "A transaction holds one of the tables: run it again when it has ended, or give --lock-timeout more seconds.",
  };
  return new TriggersRefusedError({
    message: `the server refuses (${error.code}): ${error.message}; nothing was changed`,
    remedy: remedies[error.code ?? ""] ?? "Heal what the message names, and run it again.",
    cause: error,
  });
}
