import {
  type AttributeValue,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  type UpdateItemCommandOutput,
} from "@aws-sdk/client-dynamodb";
import { captureKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";

/** Where the item of a capture task stands: one for each slot. */
export interface CapturePlace {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  /** The number of the slot, where a pipeline has several; the first one's item knows what they share. Default 1. */
  readonly slot?: number | undefined;
  readonly signal: AbortSignal;
}

/** The item as it stands, or undefined. @throws StateTableError, StateTableUnavailableError */
export async function readItem(place: CapturePlace): Promise<Record<string, AttributeValue> | undefined> {
  const { Item } = await persistently(place, () =>
    place.dynamodb.send(
      new GetItemCommand({ TableName: place.table, Key: itemKey(place), ConsistentRead: true }),
    ),
  );
  return Item;
}

/** Updates the item. @throws ConditionalCheckFailedException, StateTableError, StateTableUnavailableError */
export function updateItem(
  place: CapturePlace,
  update: Omit<UpdateItemCommandInput, "TableName" | "Key">,
): Promise<UpdateItemCommandOutput> {
  const input = { TableName: place.table, Key: itemKey(place), ...update };
  return persistently(place, () => place.dynamodb.send(new UpdateItemCommand(input)));
}

/** A number in the item; 0 where it has none. */
export function number(value: AttributeValue | undefined): number {
  return Number(value?.N ?? "0");
}

function itemKey({ pipeline, slot }: CapturePlace): Record<string, AttributeValue> {
  const { pk, sk } = captureKey(pipeline, slot);
  return { pk: { S: pk }, sk: { S: sk } };
}
