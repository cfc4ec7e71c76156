import { parseTable } from "../../change/table-pattern.ts";
import { BATCH_KIND, newEpochOfBatches } from "../batch/batch-kind.ts";
import { nothingToRemove } from "../nothing-to-remove.ts";
import type { SourceKind } from "../source-kind.ts";
import { type TriggersSource, triggersSource } from "./definition.ts";

/** An audit table that triggers fill: docs, "Triggers and polling". */
export const triggersKind: SourceKind<TriggersSource> = {
  kind: "triggers",
  definition: { schema: triggersSource },
  async check(options) {
    const { checkTriggers } = await import("./trigger-source.ts");
    return await checkTriggers(options);
  },
  reading: {
    by: "stream",
    async open(options) {
      const { openTriggerSource } = await import("./trigger-source.ts");
      return await openTriggerSource(options);
    },
  },
  ...BATCH_KIND,
  async prepare({ source }) {
    const { auditSchemaSql, tableTriggersSql } = await import("./audit-sql.ts");
    return [
      ...auditSchemaSql(source.schema),
      ...source.tables.flatMap((table) => tableTriggersSql(source.schema, parseTable(table))),
    ];
  },
  operate: {
    teardown: nothingToRemove(
      "The triggers, their function and the audit table are the tables' owner's to remove: tributary triggers uninstall",
    ),
    newEpoch: newEpochOfBatches,
  },
};
