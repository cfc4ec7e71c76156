import type { PositionText } from "../../change/position.ts";
import type { Topic } from "../../change/topic.ts";
import { fenceKey } from "../../state/state-key.ts";
import { type ConsumerPlace, ConsumerTable } from "../fence/consumer-table.ts";
import { groupOf, readPartition } from "../fence/fence-item.ts";

/**
 * How far a consumer is in each partition of a topic: its marks, in the partitions' order; undefined where nothing came
 * yet. Only reads.
 * @throws FenceUnavailableError
 */
export async function readMarks(
  place: Omit<ConsumerPlace, "consumer">,
  consumer: string,
  topic: Topic,
  signal: AbortSignal,
): Promise<(PositionText | undefined)[]> {
  const table = new ConsumerTable({ ...place, consumer }).until(signal, `read the marks of ${consumer}`);
  const partitions = Array.from({ length: topic.partitions }, (_, i) => i);
  const marks: (PositionText | undefined)[] = [];
  for (const [group, members] of Map.groupBy(partitions, groupOf)) {
    const item = await table.get(fenceKey(place.pipeline, consumer, topic.name, group));
    for (const partition of members) marks[partition] = readPartition(item, partition).mark;
  }
  return marks;
}
