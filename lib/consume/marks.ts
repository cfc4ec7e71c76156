import { type DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../change/position.ts";
import type { Topic } from "../change/topic.ts";
import { fenceKey } from "../state/table.ts";
import { groupOf, readPartition } from "./fence-item.ts";
import { callTable } from "./table-call.ts";

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
    const { pk, sk } = fenceKey(pipeline, consumer, topic.name, group);
    const { Item } = await callTable(`read the marks of ${consumer}`, signal, () =>
      dynamodb.send(
        new GetItemCommand({ TableName: table, Key: { pk: { S: pk }, sk: { S: sk } }, ConsistentRead: true }),
        { abortSignal: signal },
      ),
    );
    for (const partition of members) marks[partition] = readPartition(Item, partition).mark;
  }
  return marks;
}
