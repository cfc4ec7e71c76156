import { parseTable } from "../change/table-pattern.ts";
import type { Topic } from "../change/topic.ts";
import { captures, type Pipeline } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import { sourceKind } from "../source/index.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/** A topic of row changes, and its tables. */
export interface TopicTables {
  readonly topic: Topic;
  readonly tables: readonly string[];
}

/**
 * The tables that a topic's changes come from and that a backfill can read: of those that capture has ever had, the ones that
 * the definition names now. None for a source that cannot be backfilled, and for a topic of messages.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function tablesOfTopic(
  place: Omit<StatePlace, "signal">,
  pipeline: Pipeline,
  topic: string,
  signal: AbortSignal,
): Promise<string[]> {
  const found = await tablesByTopic(place, pipeline, signal);
  return [...(found.find((one) => one.topic.name === topic)?.tables ?? [])];
}

/** The same for every topic that has such tables, by their names. @throws StateTableError, StateTableUnavailableError */
export async function tablesByTopic(
  { dynamodb, table, pipeline: name }: Omit<StatePlace, "signal">,
  pipeline: Pipeline,
  signal: AbortSignal,
): Promise<TopicTables[]> {
  if (!sourceKind(pipeline.source).can.backfill) return [];
  const place = { dynamodb, table, pipeline: name, signal };
  const first = await readCaptureRecord(place);
  const others = await Promise.all(
    Array.from({ length: first.slots - 1 }, (_, i) => readCaptureRecord({ ...place, slot: i + 2 })),
  );
  const known = new Set([first, ...others].flatMap(({ settings }) => Object.keys(settings?.tables ?? {})));
  const route = routeTables(pipeline);
  // Its rows are events, and are not read again.
  const outbox = sourceKind(pipeline.source).events(pipeline.source).table;
  const routed = [...known].sort().flatMap((text) => {
    const parsed = parseTable(text);
    return captures(pipeline.source, parsed) && text !== outbox ? [{ text, topic: route(parsed).topic }] : [];
  });
  return [...Map.groupBy(routed, ({ topic }) => topic.name).values()].map((tables) => ({
    topic: (tables[0] as (typeof routed)[number]).topic,
    tables: tables.map(({ text }) => text),
  }));
}
