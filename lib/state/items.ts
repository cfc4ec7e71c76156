import { type AttributeValue, type DynamoDBClient, QueryCommand } from "@aws-sdk/client-dynamodb";
import type { StateKey } from "./state-key.ts";
import { persistently, type TableCallOptions } from "./table-call.ts";

/** An item of the state table. */
export type StateItem = Record<string, AttributeValue>;

/** Where items are read. */
export interface ItemsPlace extends TableCallOptions {
  readonly dynamodb: DynamoDBClient;
}

/**
 * Returns all items of a partition whose sort key begins with that of `key`, page by page.
 * @throws StateTableError, StateTableUnavailableError; with `cut`, the signal's reason.
 */
export async function* itemPages(place: ItemsPlace, { pk, sk }: StateKey): AsyncGenerator<StateItem[]> {
  let from: StateItem | undefined;
  do {
    const page = await persistently(place, (until) =>
      place.dynamodb.send(
        new QueryCommand({
          TableName: place.table,
          KeyConditionExpression: "pk = :pk AND begins_with(sk, :sk)",
          ExpressionAttributeValues: { ":pk": { S: pk }, ":sk": { S: sk } },
          ConsistentRead: true,
          ExclusiveStartKey: from,
        }),
        until,
      ),
    );
    yield page.Items ?? [];
    from = page.LastEvaluatedKey;
  } while (from);
}

/** Returns all of them at once. @throws what `itemPages` throws. */
export async function itemsOf(place: ItemsPlace, key: StateKey): Promise<StateItem[]> {
  const found: StateItem[] = [];
  for await (const page of itemPages(place, key)) found.push(...page);
  return found;
}
