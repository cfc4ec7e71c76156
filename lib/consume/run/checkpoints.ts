import type { PositionText } from "../../change/position.ts";
import type { Topic } from "../../change/topic.ts";
import { fenceKey } from "../../state/state-key.ts";
import { type ConsumerPlace, ConsumerTable } from "../fence/consumer-table.ts";
import { groupOf, readPartition } from "../fence/fence-item.ts";

/**
 * Reads how far a consumer is in each partition of a topic: its checkpoints, in the partitions' order; undefined where nothing came
 * yet. Only reads.
 * @throws FenceUnavailableError
 */
export async function readCheckpoints(
  place: Omit<ConsumerPlace, "consumer">,
  consumer: string,
  topic: Topic,
  signal: AbortSignal,
): Promise<(PositionText | undefined)[]> {
  const table = new ConsumerTable({ ...place, consumer }).until(signal, `read the marks of ${consumer}`);
  const partitions = Array.from({ length: topic.partitions }, (_, i) => i);
  const checkpoints: (PositionText | undefined)[] = [];
  for (const [group, members] of Map.groupBy(partitions, groupOf)) {
    const item = await table.get(fenceKey({ pipeline: place.pipeline, consumer }, topic.name, group));
    for (const partition of members) checkpoints[partition] = readPartition(item, partition).position;
  }
  return checkpoints;
}
