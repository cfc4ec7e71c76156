import { ConditionalCheckFailedException, DeleteItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import type { KeyPart, KeyRecord } from "../source/known-keys.ts";
import type { CapturePlace } from "./capture-item.ts";
import { itemPages } from "./items.ts";
import { knownKeysKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";

const rowKeys = z.array(z.array(z.string()));

/**
 * The known keys of a pipeline in the state table, one item a part. Each carries the generation that wrote it, and an older
 * one cannot write there any more.
 */
export function keyRecord(options: CapturePlace, generation: number): KeyRecord {
  const { dynamodb, table, pipeline } = options;
  const condition = {
    ConditionExpression: "attribute_not_exists(#generation) OR #generation <= :generation",
    ExpressionAttributeNames: { "#generation": "generation" },
    ExpressionAttributeValues: { ":generation": { N: String(generation) } },
  };
  return {
    async *read() {
      const key = knownKeysKey(pipeline);
      for await (const page of itemPages(options, key))
        yield page.map((item): KeyPart => {
          const text = (name: string) => item[name]?.S ?? "";
          const keys = rowKeys.parse(JSON.parse(text("keys")));
          return { id: Number(text("sk").slice(key.sk.length)), table: text("table"), keys };
        });
    },
    async write({ id, table: of, keys }) {
      const { pk, sk } = knownKeysKey(pipeline, id);
      const item = { pk: { S: pk }, sk: { S: sk } };
      const values = { table: { S: of }, keys: { S: JSON.stringify(keys) } };
      try {
        await persistently(options, async () => {
          if (keys.length === 0) {
            await dynamodb.send(new DeleteItemCommand({ TableName: table, Key: item, ...condition }));
            return;
          }
          const written = { ...item, ...values, generation: { N: String(generation) } };
          await dynamodb.send(new PutItemCommand({ TableName: table, Item: written, ...condition }));
        });
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException)
          throw new CaptureLeaseLostError(pipeline, generation);
        throw error;
      }
    },
  };
}
