import { formatTable, forTable } from "../../../change/table-pattern.ts";
import { outboxColumns } from "../decode/outbox-events.ts";
import type { LogPipeline } from "../definition.ts";
import type { CheckResult } from "./findings.ts";
import type { TableFacts } from "./table-facts.ts";

/** Checks that the rows of the outbox's table can be events. */
export function checkOutboxTable(source: LogPipeline["source"], tables: readonly TableFacts[]): CheckResult {
  const table = tables.find((candidate) => formatTable(candidate) === source.outbox?.table);
  const excluded = (table && forTable(source.excludeColumns, table)) ?? [];
  const columns = table?.columns.map(({ name }) => name).filter((name) => !excluded.includes(name));
  if (!table || !columns || outboxColumns(columns)) return { problems: [], warnings: [] };
  const problem = {
    code: "OUTBOX_TABLE",
    message: `${formatTable(table)} is no outbox table: it must publish id, aggregate_type, aggregate_id, type and payload`,
    remedy: "Make it with tributary outbox install, or correct source.outbox.table.",
  };
  return { problems: [problem], warnings: [] };
}
