import { PutItemCommand, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { HoldTable } from "../../../lib/consume/hold/hold-table.ts";
import { MissingTable } from "../../../lib/consume/run/missing-changes.ts";
import { heldRecordsKey, missingKey, type StateKey, startPositionKey } from "../../../lib/state/state-key.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, TOPIC } from "./records.ts";

const { signal } = new AbortController();
const HELD = { topic: TOPIC, partition: 0, id: "h" };

/** A state table with one item, of which an attribute is altered; and the consumer's tables over it. */
async function withItem({ pk, sk }: StateKey, attribute: string, json: string) {
  const dynamodb = new MemoryTable().client(async () => "none");
  const key = { pk: { S: pk }, sk: { S: sk } };
  const whole = { ...key, part: { N: "0" }, parts: { N: "1" } };
  await dynamodb.send(new PutItemCommand({ TableName: "t", Item: whole }));
  const update = { UpdateExpression: "SET #a=:v", ExpressionAttributeNames: { "#a": attribute } };
  const values = { ExpressionAttributeValues: { ":v": { S: json } } };
  await dynamodb.send(new UpdateItemCommand({ TableName: "t", Key: key, ...update, ...values }));
  return { dynamodb, table: new ConsumerTable({ dynamodb, table: "t", pipeline: "p", consumer: "c" }) };
}

describe("JSON in the state table that is not as it was written", () => {
  const missing = missingKey({ pipeline: "p", consumer: "c" }, { topic: TOPIC, partition: 0, upTo: at(3) });
  it.each([
    ["accepted", '{"by":"secret","at":1,"tables":{}}', "accepted.at: expected a text"],
    ["accepted", "secret", "accepted: is not JSON"],
    ["swept", '["public.orders",5]', "swept.1: expected a text"],
  ])("is named, of missing changes: %s = %s", async (attribute, json, problem) => {
    const { table } = await withItem(missing, attribute, json);
    const listed = new MissingTable(table).list(signal);
    await expect(listed).rejects.toMatchObject({
      code: "STATE_ITEM",
      message: expect.stringContaining(problem),
    });
    await expect(listed).rejects.not.toThrow(/secret/);
  });

  it("is named, of a consumer's topics, and not written over", async () => {
    const json = '{"shop.*":[{"since":"1","position":"x"}]}';
    const { dynamodb } = await withItem(startPositionKey({ pipeline: "p", consumer: "c" }), "spans", json);
    const registered = registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], at(1));
    await expect(registered).rejects.toMatchObject({
      code: "STATE_ITEM",
      message: expect.stringMatching(/^consumer "c": the item floor .* spans\.shop\.\*\.0\.since: expected/),
    });
  });

  it.each([
    ["none", "other", "records: is not JSON"],
    ["facts that are cut off", "records", "records: is not JSON"],
  ])("is named, of held records: %s", async (_what, attribute, problem) => {
    const key = heldRecordsKey({ pipeline: "p", consumer: "c" }, TOPIC, 0, "h", "0011#w#000");
    const { table } = await withItem(key, attribute, '[{"sequenceNumber":"1"');
    const records = new HoldTable(table).records(HELD, "009", signal).next();
    await expect(records).rejects.toMatchObject({
      code: "STATE_ITEM",
      message: expect.stringContaining(problem),
    });
  });
});
