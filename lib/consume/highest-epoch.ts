import { type DynamoDBClient, QueryCommand } from "@aws-sdk/client-dynamodb";
import { type PositionText, parsePosition } from "../change/position.ts";
import { floorKey } from "../state/table.ts";
import { positionsOf } from "./floor.ts";
import { callTable } from "./table-call.ts";

/** A mark of a partition (`lib/consume/fence-item.ts`). */
const MARK = /^m\d+$/;

/**
 * The highest epoch in which a change took effect anywhere, as far as the state table knows; 0 before any. A pipeline
 * that began anew below it would write positions that its consumers drop as old.
 */
export async function highestEpoch(
  dynamodb: DynamoDBClient,
  table: string,
  pipeline: string,
  consumers: readonly { readonly name: string }[],
  signal: AbortSignal,
): Promise<number> {
  let highest: PositionText = "";
  for (const { name } of consumers) {
    const { pk } = floorKey(pipeline, name);
    let from: QueryCommand["input"]["ExclusiveStartKey"];
    do {
      const { Items = [], LastEvaluatedKey } = await callTable(`read the marks of ${name}`, signal, () =>
        dynamodb.send(
          new QueryCommand({
            TableName: table,
            KeyConditionExpression: "pk = :pk",
            ExpressionAttributeValues: { ":pk": { S: pk } },
            ConsistentRead: true,
            ExclusiveStartKey: from,
          }),
          { abortSignal: signal },
        ),
      );
      for (const item of Items) {
        const marks = Object.entries(item).flatMap(([name, { S: mark = "" }]) =>
          MARK.test(name) ? mark : [],
        );
        for (const position of [...marks, ...positionsOf(item)]) if (position > highest) highest = position;
      }
      from = LastEvaluatedKey;
    } while (from);
  }
  return highest === "" ? 0 : parsePosition(highest).epoch;
}
