import { parseTable } from "../change/table-pattern.ts";
import { captures, type Pipeline } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import { sourceKind } from "../source/index.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/**
 * The tables that a topic's changes come from and that a backfill can read: of those that capture has ever had, the ones that
 * the definition names now. None for a source that cannot be backfilled, and for a topic of messages.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function tablesOfTopic(
  { dynamodb, table, pipeline: name }: Omit<StatePlace, "signal">,
  pipeline: Pipeline,
  topic: string,
  signal: AbortSignal,
): Promise<string[]> {
  if (!sourceKind(pipeline.source).can.backfill) return [];
  const place = { dynamodb, table, pipeline: name, signal };
  const first = await readCaptureRecord(place);
  const others = await Promise.all(
    Array.from({ length: first.slots - 1 }, (_, i) => readCaptureRecord({ ...place, slot: i + 2 })),
  );
  const known = new Set([first, ...others].flatMap(({ settings }) => Object.keys(settings?.tables ?? {})));
  const route = routeTables(pipeline);
  return [...known].sort().filter((text) => {
    const parsed = parseTable(text);
    return captures(pipeline.source, parsed) && route(parsed).topic.name === topic;
  });
}
