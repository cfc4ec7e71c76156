import { setTimeout as sleep } from "node:timers/promises";
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DeleteItemCommandInput,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  type PutItemCommandInput,
  QueryCommand,
  type QueryCommandInput,
  type QueryCommandOutput,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  type UpdateItemCommandOutput,
} from "@aws-sdk/client-dynamodb";
import type { StateKey } from "../../state/state-key.ts";
import { isTransient } from "../../state/table-error.ts";
import { FenceUnavailableError } from "../consume-errors.ts";

const BASE_MS = 25;
const CAP_MS = 1_000;

/**
 * Makes a call to the state table, again with jittered backoff while it is throttled or unanswered. A try
 * whose answer was lost may have been carried out: `call` must bear being repeated.
 * @throws FenceUnavailableError when `signal` aborts first, and errors that no repetition helps, as they are.
 */
export async function callTable<T>(what: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await call();
    } catch (error) {
      if (!isTransient(error)) throw error;
      const full = Math.min(CAP_MS, BASE_MS * 2 ** failures);
      if (!signal.aborted) {
        await sleep(full / 2 + (full / 2) * Math.random(), undefined, { signal }).catch(() => {});
      }
      if (signal.aborted) throw new FenceUnavailableError(what, error);
    }
  }
}

/** An item of the state table, with its attributes as DynamoDB has them. */
export type TableItem = Record<string, AttributeValue>;

/** Where an item stands, as DynamoDB takes it. */
export interface ItemPlace {
  readonly TableName: string;
  readonly Key: TableItem;
}

/** The place of an item in the state table. */
export function itemAt(TableName: string, { pk, sk }: StateKey): ItemPlace {
  return { TableName, Key: { pk: { S: pk }, sk: { S: sk } } };
}

/** Reads one item as it stands now. */
export async function readItem(
  dynamodb: DynamoDBClient,
  what: string,
  at: ItemPlace,
  signal: AbortSignal,
): Promise<TableItem | undefined> {
  const command = new GetItemCommand({ ...at, ConsistentRead: true });
  const { Item } = await callTable(what, signal, () => dynamodb.send(command, { abortSignal: signal }));
  return Item;
}

/** Changes one item; undefined where the condition does not hold. */
export function updateItem(
  dynamodb: DynamoDBClient,
  what: string,
  input: UpdateItemCommandInput,
  signal: AbortSignal,
): Promise<UpdateItemCommandOutput | undefined> {
  const command = new UpdateItemCommand(input);
  return callTable(what, signal, () => unlessRefused(dynamodb.send(command, { abortSignal: signal })));
}

/** Writes an item; returns whether the condition held. */
export async function putItem(
  dynamodb: DynamoDBClient,
  what: string,
  input: PutItemCommandInput,
  signal: AbortSignal,
): Promise<boolean> {
  const command = new PutItemCommand(input);
  const send = () => unlessRefused(dynamodb.send(command, { abortSignal: signal }));
  return (await callTable(what, signal, send)) !== undefined;
}

/** Deletes an item, where the condition holds. */
export async function deleteItem(
  dynamodb: DynamoDBClient,
  what: string,
  input: DeleteItemCommandInput,
  signal: AbortSignal,
): Promise<void> {
  const command = new DeleteItemCommand(input);
  await callTable(what, signal, () => unlessRefused(dynamodb.send(command, { abortSignal: signal })));
}

/** What a call answers; undefined where its condition does not hold. */
async function unlessRefused<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return undefined;
    throw error;
  }
}

/** The items that a query finds as they stand now, page by page. */
export async function* queryItems(
  dynamodb: DynamoDBClient,
  what: string,
  input: QueryCommandInput,
  signal: AbortSignal,
): AsyncGenerator<TableItem> {
  let from: TableItem | undefined;
  do {
    const command = new QueryCommand({ ...input, ConsistentRead: true, ExclusiveStartKey: from });
    const page: QueryCommandOutput = await callTable(what, signal, () =>
      dynamodb.send(command, { abortSignal: signal }),
    );
    yield* page.Items ?? [];
    from = page.LastEvaluatedKey;
  } while (from);
}
