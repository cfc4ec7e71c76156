import {
  type AttributeValue,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
} from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import type { AskedTable, RereadRecord } from "../source/postgres/reread/reread-record.ts";
import type { CaptureState } from "./capture-state.ts";
import { itemsOf } from "./items.ts";
import { rereadKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";
import { notNewer, underLease } from "./under-lease.ts";

/** How the rows that a pipeline is to read again are reached. */
export interface RereadStore {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly signal: AbortSignal;
}

const position = z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/);

const stored = z.object({
  rows: z.array(z.object({ key: z.record(z.string(), z.string()), at: position })),
  whole: position.optional(),
});

/** What of each table is to be read again. @throws StateTableError, StateTableUnavailableError */
export async function readRereads(store: RereadStore): Promise<AskedTable[]> {
  const key = rereadKey(store.pipeline);
  return (await itemsOf(store, key)).map((item) => parse((item.sk?.S ?? "").slice(key.sk.length), item));
}

/** The rows to be read again as the capture task that holds the lease keeps them. */
export function rereadRecord(
  store: RereadStore,
  lease: Pick<CaptureState, "generation" | "confirm">,
): RereadRecord {
  const { dynamodb, table: tableName, pipeline } = store;
  const { generation } = lease;
  const condition = notNewer(generation);
  return {
    list: () => readRereads(store),
    read: async (table) => {
      const command = new GetItemCommand({
        TableName: tableName,
        Key: itemKey(pipeline, table),
        ConsistentRead: true,
      });
      const { Item } = await persistently(store, () => dynamodb.send(command));
      return Item && parse(table, Item);
    },
    write: async ({ table, ...asked }) => {
      // What a later task finds here must not go because of rows that an older one gave: consumers may have dropped those.
      await lease.confirm();
      const Key = itemKey(pipeline, table);
      const nothing = asked.rows.length === 0 && asked.whole === undefined;
      await underLease(store, generation, () =>
        nothing
          ? dynamodb.send(new DeleteItemCommand({ TableName: tableName, Key, ...condition }))
          : dynamodb.send(
              new PutItemCommand({
                TableName: tableName,
                Item: {
                  ...Key,
                  asked: { S: JSON.stringify(asked) },
                  generation: { N: String(generation) },
                },
                ...condition,
              }),
            ),
      );
    },
  };
}

function parse(table: string, item: Record<string, AttributeValue>): AskedTable {
  return { table, ...stored.parse(JSON.parse(item.asked?.S ?? "null")) };
}

function itemKey(pipeline: string, table: string): Record<string, AttributeValue> {
  const { pk, sk } = rereadKey(pipeline, table);
  return { pk: { S: pk }, sk: { S: sk } };
}
