import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import type { Hold, HoldRecord } from "../source/postgres/hold/hold-record.ts";
import { itemsOf } from "./items.ts";
import { TopicNotHeldError } from "./state-errors.ts";
import { holdKey, holdSegmentKey, type StateKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";
import { notNewer, underLease } from "./under-lease.ts";

/** How the holds of a pipeline are reached. */
export interface HoldStore {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly signal: AbortSignal;
}

/** A hold as it stands in the table, and whether somebody asked for its release. */
export type StoredHold = Hold & { readonly released: boolean };

const position = z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/);

const stored = z.object({
  reason: z.object({
    code: z.string(),
    message: z.string(),
    remedy: z.string(),
    table: z.string(),
    position,
  }),
  since: z.number(),
  from: position,
  last: position,
  by: z.int().optional(),
  drained: position,
  first: z.int(),
  next: z.int(),
  changes: z.int(),
  bytes: z.int(),
});

const segment = z.object({
  claim: z.object({ bucket: z.string(), key: z.string(), bytes: z.int(), sha256: z.string() }),
  changes: z.int(),
  last: position,
});

/** All held topics of a pipeline. @throws StateTableError, StateTableUnavailableError */
export async function readHolds(store: HoldStore): Promise<StoredHold[]> {
  return (await readItems(store)).map(({ hold }) => hold);
}

/** The held topics that the capture task of one generation wrote last. @throws StateTableError, StateTableUnavailableError */
export async function readHoldsOf(store: HoldStore, writer: number): Promise<StoredHold[]> {
  return (await readItems(store)).flatMap(({ hold, generation }) => (generation === writer ? hold : []));
}

async function readItems(store: HoldStore): Promise<{ hold: StoredHold; generation: number }[]> {
  const key = holdKey(store.pipeline);
  return (await itemsOf(store, key)).flatMap((item) => {
    if (item.held === undefined) return [];
    const topic = (item.sk?.S ?? "").slice(key.sk.length);
    const hold = stored.parse(JSON.parse(item.held.S ?? "null"));
    const generation = Number(item.generation?.N ?? "0");
    return { hold: { topic, ...hold, released: item.wanted?.S === "release" }, generation };
  });
}

/**
 * Asks the capture task to release a topic; it looks every few seconds.
 * @throws TopicNotHeldError, StateTableError, StateTableUnavailableError
 */
export async function wantRelease(store: HoldStore, topic: string): Promise<void> {
  try {
    await persistently(store, () =>
      store.dynamodb.send(
        new UpdateItemCommand({
          TableName: store.table,
          Key: asKey(holdKey(store.pipeline, topic)),
          UpdateExpression: "SET wanted = :release",
          ConditionExpression: "attribute_exists(held)",
          ExpressionAttributeValues: { ":release": { S: "release" } },
        }),
      ),
    );
  } catch (error) {
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
    const held = (await readHolds(store)).map((hold) => hold.topic);
    throw new TopicNotHeldError(store.pipeline, topic, held);
  }
}

/** The holds of a pipeline as the capture task that holds the lease keeps them. */
export function holdRecord(store: HoldStore, generation: number): HoldRecord {
  const { dynamodb, table, pipeline } = store;
  const condition = notNewer(generation);
  const send = (command: () => Promise<unknown>) => underLease(store, generation, command);
  const remove = (key: StateKey) =>
    send(() =>
      dynamodb.send(
        new DeleteItemCommand({
          TableName: table,
          Key: asKey(key),
          ...condition,
        }),
      ),
    );
  return {
    list: () => readHolds(store),
    writeSegment: (topic, index, written) =>
      send(() =>
        dynamodb.send(
          new PutItemCommand({
            TableName: table,
            Item: {
              ...asKey(holdSegmentKey(pipeline, topic, index)),
              segment: { S: JSON.stringify(written) },
              generation: condition.ExpressionAttributeValues[":generation"],
            },
            ...condition,
          }),
        ),
      ),
    readSegment: async (topic, index) => {
      const { Item } = await persistently(store, () =>
        dynamodb.send(
          new GetItemCommand({
            TableName: table,
            Key: asKey(holdSegmentKey(pipeline, topic, index)),
            ConsistentRead: true,
          }),
        ),
      );
      return segment.parse(JSON.parse(Item?.segment?.S ?? "null"));
    },
    write: ({ topic, ...hold }, refused = false) =>
      send(() =>
        dynamodb.send(
          new UpdateItemCommand({
            TableName: table,
            Key: asKey(holdKey(pipeline, topic)),
            UpdateExpression: `SET held = :hold, generation = :generation${refused ? " REMOVE wanted" : ""}`,
            ...condition,
            ExpressionAttributeValues: {
              ...condition.ExpressionAttributeValues,
              ":hold": { S: JSON.stringify(hold) },
            },
          }),
        ),
      ),
    end: async ({ topic, next }) => {
      // The hold first: without it the segments count for nothing. The generation stays: an older task begins no hold here.
      await send(() =>
        dynamodb.send(
          new UpdateItemCommand({
            TableName: table,
            Key: asKey(holdKey(pipeline, topic)),
            UpdateExpression: "SET generation = :generation REMOVE held, wanted",
            ...condition,
          }),
        ),
      );
      for (let index = 0; index < next; index++) await remove(holdSegmentKey(pipeline, topic, index));
    },
  };
}

function asKey({ pk, sk }: StateKey): Record<string, AttributeValue> {
  return { pk: { S: pk }, sk: { S: sk } };
}
