import type pg from "pg";
import type { TableName } from "../../../change/table-pattern.ts";
import { publishes, readPublication } from "../catalog/publication.ts";
import { checkPublishedIdentity } from "../catalog/publication-change.ts";
import { type PublicationStep, planPublication } from "../catalog/publication-plan.ts";
import type { LogPipeline } from "../definition.ts";
import { captureTables } from "./captured-tables.ts";
import { type CheckResult, gather } from "./findings.ts";
import { checkKeyColumns } from "./key-columns.ts";
import { checkLargeValues } from "./large-values.ts";
import { checkNames } from "./names.ts";
import { checkOutboxTable } from "./outbox-table.ts";
import { checkReading } from "./permissions.ts";
import { checkReplicaIdentity } from "./replica-identity.ts";
import { checkServer } from "./server.ts";
import { readServerFacts, type ServerFacts } from "./server-facts.ts";
import { readRelations, readTables, type TableFacts } from "./table-facts.ts";

/** The result of a look at the server. */
export interface PreflightReport extends CheckResult {
  readonly server: ServerFacts;
  /** The tables that will be captured. */
  readonly tables: readonly TableFacts[];
  /** Their partitions. */
  readonly leaves: readonly TableFacts[];
  readonly publication: PublicationStep;
}

/**
 * Looks whether a database is fit for what the definition captures: server, role, tables, replica identities,
 * keys, publication. Finds all problems at once, each with the SQL that helps; touches nothing. `isOwn` says which tables are
 * this slot's, where there are several. `follow`: the publication is read as it is, whatever it holds.
 */
export async function preflight(
  client: pg.Client,
  definition: Pick<LogPipeline, "name" | "source" | "topics">,
  isOwn: (table: TableName) => boolean = () => true,
  follow = false,
): Promise<PreflightReport> {
  const { source } = definition;
  const server = await readServerFacts(client);
  const { rows } = await client.query("SELECT FROM pg_replication_slots WHERE slot_name = $1", [source.slot]);
  const captured = captureTables(source, await readRelations(client));
  const existing = await readPublication(client, source.publication, server.version);
  const own = captured.tables.filter((table) => isOwn(table) && (!follow || publishes(existing, table)));
  const roots = new Set(own.map(({ oid }) => oid));
  const [tables, leaves] = [
    await readTables(client, own),
    await readTables(
      client,
      captured.leaves.filter(({ ancestors }) => ancestors.some((oid) => roots.has(oid))),
    ),
  ];
  const publication =
    follow && existing
      ? { problems: [], warnings: [], step: { kind: "use" } as const }
      : planPublication(definition, server, tables, existing);
  const findings = gather([
    checkServer(server, source, { slotExists: rows.length > 0 }),
    checkNames([...tables, ...leaves]),
    checkReading(source, server, tables),
    ...(follow
      ? []
      : [
          captured,
          checkReplicaIdentity(source, tables, leaves, server.version, definition.topics),
          checkLargeValues(source, tables, leaves),
          checkKeyColumns(definition, tables, leaves, captured.tables),
          checkOutboxTable(source, tables),
          {
            problems:
              existing && publication.step.kind === "use"
                ? checkPublishedIdentity(existing, [...tables, ...leaves], server.version)
                : [],
            warnings: [],
          },
        ]),
    publication,
  ]);
  return { ...findings, server, tables, leaves, publication: publication.step };
}
