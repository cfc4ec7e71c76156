import type pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { formatTable } from "../../change/table-pattern.ts";
import { batchSource } from "../batch/batch-source.ts";
import type { PreflightProblem } from "../postgres/postgres-errors.ts";
import type { ServerFacts } from "../postgres/preflight/server-facts.ts";
import type { TableFacts } from "../postgres/preflight/table-facts.ts";
import type { TriggersSource } from "./definition.ts";
import { INSTALL, isFunctionCurrent, readTriggers } from "./installed.ts";
import { TriggerReader } from "./trigger-reader.ts";
import { planTriggers } from "./triggers.ts";

/** Reads the audit table that triggers fill. */
export const triggerReads = batchSource<TriggersSource, undefined>({
  async checkServer(_client, _source, { standby }) {
    if (!standby) return [];
    return [
      {
        code: "STANDBY",
        message: "the server is a standby: what was read cannot be deleted from the audit table there",
        remedy: "Connect to the primary.",
      },
    ];
  },
  async checkTables(client, { source }, server, _captured, tables) {
    const installed = { problems: await checkInstalled(client, source, tables, server), warnings: [] };
    const version = { problems: [], warnings: await checkVersion(client, source) };
    return { findings: [installed, version], found: undefined };
  },
  readsExisting: false,
  async notes(client, pipeline) {
    const { surplus } = await planTriggers(client, pipeline, undefined);
    if (surplus.length === 0) return [];
    const names = surplus.map(formatTable).join(", ");
    return [
      `Triggers of ours stand on ${names}, which should have none: tributary triggers install removes them.`,
    ];
  },
  reader: ({ pipeline, log }, { version }) => new TriggerReader(pipeline, { version, log }),
});

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
