import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../../change/position.ts";
import type { Topic } from "../../change/topic.ts";
import { fenceKey } from "../../state/state-key.ts";
import { groupOf, readPartition } from "../fence/fence-item.ts";
import { itemAt, readItem } from "../fence/table-call.ts";

/**
 * How far a consumer is in each partition of a topic: its marks, in the partitions' order; undefined where nothing came
 * yet. Only reads.
 * @throws FenceUnavailableError
 */
export async function readMarks(
  { dynamodb, table, pipeline }: { dynamodb: DynamoDBClient; table: string; pipeline: string },
  consumer: string,
  topic: Topic,
  signal: AbortSignal,
): Promise<(PositionText | undefined)[]> {
  const partitions = Array.from({ length: topic.partitions }, (_, i) => i);
  const marks: (PositionText | undefined)[] = [];
  for (const [group, members] of Map.groupBy(partitions, groupOf)) {
    const at = itemAt(table, fenceKey(pipeline, consumer, topic.name, group));
    const item = await readItem(dynamodb, `read the marks of ${consumer}`, at, signal);
    for (const partition of members) marks[partition] = readPartition(item, partition).mark;
  }
  return marks;
}
