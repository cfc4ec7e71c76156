import { parseTable } from "../../change/table-pattern.ts";
import { batchKind } from "../batch/batch-kind.ts";
import { type TriggersSource, triggersSource } from "./definition.ts";

/** An audit table that triggers fill: docs, "Triggers and polling". */
export const triggersKind = batchKind<TriggersSource>({
  kind: "triggers",
  schema: triggersSource,
  load: async () => (await import("./trigger-source.ts")).triggerReads,
  async prepare({ source }) {
    const { auditSchemaSql, tableTriggersSql } = await import("./audit-sql.ts");
    return [
      ...auditSchemaSql(source.schema),
      ...source.tables.flatMap((table) => tableTriggersSql(source.schema, parseTable(table))),
    ];
  },
  setUp: async (options) => (await import("./set-up.ts")).triggersSetUp(options),
  remains:
    "The triggers, their function and the audit table are the tables' owner's to remove: tributary triggers uninstall",
});
