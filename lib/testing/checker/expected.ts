import { formatPosition } from "../../change/position.ts";
import type { TableName } from "../../change/table-pattern.ts";
import type { RouteTable } from "../../definition/route.ts";
import type { ExpectedEvent } from "./check.ts";
import type { TruthChange } from "./truth.ts";

/** What a letter of capture says of a change that must be put aside: its topic and its last ordinal's position. */
export function expectedLetter(
  change: TruthChange,
  route: RouteTable,
  tableOf: (name: string) => TableName,
  epoch: number,
): string {
  const ordinal = change.ordinal + (change.op === "u" ? 1 : 0);
  const position = formatPosition({ epoch, commitLsn: change.commitLsn, ordinal });
  return `${route(tableOf(change.table)).topic.name}/${position}`;
}

/** The events that a committed change must become, in their order. */
export function expectedEvents(
  change: TruthChange,
  route: RouteTable,
  tableOf: (name: string) => TableName,
  epoch: number,
): ExpectedEvent[] {
  if (change.undecodable) return [];
  const { topic } = route(tableOf(change.table));
  const at = (ordinal: number, key: readonly string[]): ExpectedEvent => ({
    topic: topic.name,
    position: formatPosition({ epoch, commitLsn: change.commitLsn, ordinal }),
    key: key.join("\0"),
  });
  if (change.op === "t") return [{ ...at(change.ordinal, []), partitions: topic.partitions }];
  if (change.oldKey) return [at(change.ordinal, change.oldKey), at(change.ordinal + 1, change.key)];
  return [at(change.ordinal, change.key)];
}
