import pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import type { TableName } from "../../change/table-pattern.ts";
import type { PipelineOf } from "../../definition/definition.ts";
import { PreflightError } from "../postgres/postgres-errors.ts";
import { captureTables } from "../postgres/preflight/captured-tables.ts";
import { type RelationEntry, readRelations } from "../postgres/preflight/table-facts.ts";
import {
  AUDIT_COMMENT,
  auditSchemaSql,
  BEFORE_TRUNCATE_TRIGGER,
  dropTriggersSql,
  partitionTriggersSql,
  readerGrantsSql,
  rowTriggerName,
  tableTriggersSql,
} from "./audit-sql.ts";
import type { TriggersSource } from "./definition.ts";
import { isFunctionCurrent, readTriggers, type TableTriggers } from "./installed.ts";
import { TriggersRefusedError } from "./triggers-errors.ts";

/** Plan of `tributary triggers`. */
export interface TriggersPlan {
  /** Tables that the definition captures. */
  readonly tables: readonly TableName[];
  /** Of those and of their partitions, the ones whose triggers are missing, do not always fire, or are of an older version. */
  readonly missing: readonly TableName[];
  /** Tables with triggers of ours that they should not have: not captured any more, or partitions of a captured table by now. */
  readonly surplus: readonly TableName[];
  /** `none`, `ours`, or a schema of that name that we did not make. */
  readonly schema: "none" | "ours" | "foreign";
  /** True if the function that the triggers call is the one of this version. */
  readonly current: boolean;
  /** Changes that stand in the audit table. */
  readonly waiting: number;
  /** The statements in their order; they may be run again. */
  readonly sql: readonly string[];
}

type Definition = PipelineOf<TriggersSource>;

/**
 * Returns the statements that install the triggers of a definition. Touches nothing.
 * @throws PreflightError where a table cannot be captured or the schema belongs to something else.
 */
export async function planTriggers(
  client: pg.Client,
  pipeline: Definition,
  reader: string | undefined,
): Promise<TriggersPlan> {
  const { source } = pipeline;
  const { tables, leaves, problems } = captureTables(source, await readRelations(client));
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
  const found = new Map(installed.map((table) => [table.oid, table]));
  const rowTrigger = new Map(
    tables.map(({ oid, kind }) => [oid, rowTriggerName(kind === "p" ? oid : undefined)]),
  );
  const partitions = new Set(leaves.map(({ oid }) => oid));
  const isMissing = ({ oid }: RelationEntry) => {
    const { whole, beforeTruncate, rows = [] } = found.get(oid) ?? {};
    const wanted = rowTrigger.get(oid);
    return !beforeTruncate || (wanted !== undefined && !(whole && rows.includes(wanted)));
  };
  const surplusOf = ({ oid, names, rows }: TableTriggers): readonly string[] => {
    const wanted = rowTrigger.get(oid);
    if (wanted !== undefined) return rows.filter((name) => name !== wanted);
    return partitions.has(oid) ? names.filter((name) => name !== BEFORE_TRUNCATE_TRIGGER) : names;
  };
  const surplus = installed.filter((table) => surplusOf(table).length > 0);
  const nameOf = ({ schema: s, table }: TableName): TableName => ({ schema: s, table });
  return {
    tables: tables.map(nameOf),
    missing: [...tables, ...leaves].filter(isMissing).map(nameOf),
    surplus: surplus.filter(({ oid }) => !rowTrigger.has(oid)).map(nameOf),
    schema,
    current: await isFunctionCurrent(client, source.schema),
    waiting: schema === "ours" ? await readWaiting(client, source.schema) : 0,
    sql: [
      ...auditSchemaSql(source.schema),
      ...tables.flatMap((table) =>
        tableTriggersSql(source.schema, table, table.kind === "p" ? table.oid : undefined),
      ),
      ...leaves.flatMap((leaf) => partitionTriggersSql(source.schema, leaf)),
      ...surplus.flatMap((table) => dropTriggersSql(table, surplusOf(table))),
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

/** Returns the statements that remove them. Touches nothing. */
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
            ...tables.flatMap((table) => dropTriggersSql(table, table.names)),
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
