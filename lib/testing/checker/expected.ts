import { formatPosition } from "../../change/position.ts";
import type { TableName } from "../../change/table-pattern.ts";
import type { ConsumerDefinition } from "../../definition/definition.ts";
import type { RouteTable } from "../../definition/route.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";
import type { ExpectedEvent, Findings } from "./check.ts";
import type { TruthChange } from "./truth.ts";

/** The topic and last position that a dead letter of capture names for a change that must be put aside: `topic/position`. */
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

/** The events of a consumer's topics. */
export function ofConsumer(consumer: ConsumerDefinition, events: readonly ExpectedEvent[]): ExpectedEvent[] {
  const matches = consumer.topics.map(topicPattern);
  return events.filter(({ topic }) => matches.some((match) => match(topic)));
}

/** Counts the effects of these events: a truncate has one in each partition. */
export function countEffects(events: readonly ExpectedEvent[]): number {
  return events.reduce((sum, { partitions = 1 }) => sum + partitions, 0);
}

/** Events that are not among the dead letters, as `topic/position`, or `topic/partition/position` for each partition of a truncate. */
export function notIn(letters: ReadonlySet<string>, events: readonly ExpectedEvent[]): string[] {
  return events
    .flatMap(({ topic, position, partitions }) =>
      partitions === undefined
        ? [`${topic}/${position}`]
        : Array.from({ length: partitions }, (_, partition) => `${topic}/${partition}/${position}`),
    )
    .filter((id) => !letters.has(id));
}

/** Holds capture's dead letters against the changes that no event can be made of. */
export function checkPutAside(due: ReadonlySet<string>, found: ReadonlySet<string>): Findings {
  const lost = [...due].filter((id) => !found.has(id)).map((id) => `lost: ${id}: not put aside`);
  const extra = [...found].filter((id) => !due.has(id)).map((id) => `extra: ${id}: put aside`);
  return {
    ...{ events: due.size, lost: lost.length, extra: extra.length },
    ...{ outOfOrder: 0, duplicates: 0, tailDuplicates: 0, underWay: 0 },
    examples: [...lost, ...extra],
  };
}
