import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import type { UnhealedRecord, UnhealedTable } from "../source/postgres/contract/unhealed-record.ts";
import { itemsOf } from "./items.ts";
import { TableNotUnhealedError } from "./state-errors.ts";
import { type StateKey, unhealedKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";
import { notNewer, underLease } from "./under-lease.ts";

/** How the unhealed tables of a pipeline are reached. */
export interface UnhealedStore {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly signal: AbortSignal;
}

const place = z.object({ position: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/), atMs: z.number() });

const stored = z.object({
  reasons: z.array(z.string()),
  since: place,
  until: place,
  asks: z.boolean(),
});

/** The tables of which changes may be missing. @throws StateTableError, StateTableUnavailableError */
export async function readUnhealed(store: UnhealedStore): Promise<readonly UnhealedTable[]> {
  const key = unhealedKey(store.pipeline);
  return (await itemsOf(store, key)).flatMap(({ sk, unhealed }) =>
    unhealed?.S === undefined
      ? []
      : { table: (sk?.S ?? "").slice(key.sk.length), ...stored.parse(JSON.parse(unhealed.S)) },
  );
}

/**
 * Accepts that changes of a table are missing: an operator's act.
 * @throws TableNotUnhealedError, StateTableError, StateTableUnavailableError
 */
export async function acceptUnhealed(store: UnhealedStore, table: string): Promise<void> {
  const known = (await readUnhealed(store)).map((entry) => entry.table);
  if (!known.includes(table)) throw new TableNotUnhealedError(store.pipeline, table, known);
  try {
    await persistently(store, () =>
      store.dynamodb.send(
        new UpdateItemCommand({
          TableName: store.table,
          Key: asKey(unhealedKey(store.pipeline, table)),
          // The generation stays: an older task brings it no more.
          UpdateExpression: "REMOVE unhealed",
          ConditionExpression: "attribute_exists(pk)",
        }),
      ),
    );
  } catch (error) {
    // The capture task was quicker: a backfill has healed it.
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
  }
}

/** The unhealed tables of a pipeline as the capture task that holds the lease keeps them. */
export function unhealedRecord(store: UnhealedStore, generation: number): UnhealedRecord {
  const { dynamodb, table: stateTable, pipeline } = store;
  const condition = notNewer(generation);
  const send = (command: () => Promise<unknown>) => underLease(store, generation, command);
  return {
    list: () => readUnhealed(store),
    write: ({ table, ...entry }) =>
      send(() =>
        dynamodb.send(
          new UpdateItemCommand({
            TableName: stateTable,
            Key: asKey(unhealedKey(pipeline, table)),
            UpdateExpression: "SET unhealed = :unhealed, generation = :generation",
            ...condition,
            ExpressionAttributeValues: {
              ...condition.ExpressionAttributeValues,
              ":unhealed": { S: JSON.stringify(entry) },
            },
          }),
        ),
      ),
    end: (table) =>
      send(() =>
        dynamodb.send(
          new DeleteItemCommand({
            TableName: stateTable,
            Key: asKey(unhealedKey(pipeline, table)),
            ...condition,
          }),
        ),
      ),
  };
}

function asKey({ pk, sk }: StateKey): Record<string, AttributeValue> {
  return { pk: { S: pk }, sk: { S: sk } };
}
