import { formatTable, forTable } from "../../../change/table-pattern.ts";
import type { LogPipeline } from "../definition.ts";
import type { CheckResult } from "./findings.ts";
import { partitionsOf } from "./replica-identity.ts";
import { identityColumns, type TableFacts } from "./table-facts.ts";

/** So many tables are named. */
const NAMED = 20;

/**
 * In which tables the change of a row's key may leave a large value as it was, which then does not travel: the log has no more
 * of the old row than its key. `leaves`: their partitions.
 */
export function checkLargeValues(
  source: LogPipeline["source"],
  tables: readonly TableFacts[],
  leaves: readonly TableFacts[],
): CheckResult {
  const found = tables.flatMap((table) => {
    const excluded = forTable(source.excludeColumns, table) ?? [];
    const large = [table, ...partitionsOf(table, leaves)].flatMap((part) => {
      const key = identityColumns(part);
      if (key === undefined || part.replicaIdentity === "f") return [];
      return part.largeColumns.filter((column) => !key.includes(column) && !excluded.includes(column));
    });
    return large.length > 0 ? [`${formatTable(table)} (${[...new Set(large)].join(", ")})`] : [];
  });
  if (found.length === 0) return { problems: [], warnings: [] };
  const more = found.length > NAMED ? ` and ${found.length - NAMED} more` : "";
  return {
    problems: [],
    warnings: [
      {
        code: "LARGE_VALUES",
        message: `when the key of a row changes, a value above about 2 kB that stays as it was does not travel with the change: ${found.slice(0, NAMED).join(", ")}${more}`,
        remedy:
          "Leave it as it is: the row is read again and follows whole. REPLICA IDENTITY FULL sends such values at once, at the price of whole old rows in the log.",
      },
    ],
  };
}
