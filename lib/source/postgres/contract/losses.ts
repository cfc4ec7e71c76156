import { formatTable } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { TermsDifference } from "./difference.ts";
import type { Sighting } from "./terms.ts";
import type { Loss } from "./unhealed-tables.ts";

/** Returns the losses that differences of a publication may have caused. */
export function lossesOf(
  publication: string,
  differences: readonly TermsDifference[],
  since: Sighting,
  until: Sighting,
): readonly Loss[] {
  return differences.flatMap(({ table, kind, what }): Loss[] => {
    if (kind === "widened") return [];
    const reason =
      kind === "narrowed"
        ? `the publication "${publication}" leaves out ${what}`
        : `the publication "${publication}" was changed and put back, and may have left out ${what}`;
    return [{ table: formatTable(table), reason, since, until }];
  });
}

/** Says what is published in addition: nothing can be missing by that. */
export function tellWidened(log: Log, publication: string, differences: readonly TermsDifference[]): void {
  for (const { table, kind, what } of differences)
    if (kind === "widened")
      log.info(
        `the publication "${publication}" publishes more of ${formatTable(table)} than before: ${what}`,
      );
}
