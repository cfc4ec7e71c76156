import { UpdateItemCommand, type UpdateItemCommandInput } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { deadLetterRequest } from "../../../lib/consume/dead-letter/dead-letter-request.ts";
import { DeadLetterFormatError } from "../../../lib/consume/dead-letter/redrive-errors.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, chain, invocationOf, packed, TOPIC } from "./records.ts";

/** Two parked keys, "1" and "2"; then the first item of a kind is altered. */
async function altered(prefix: "letter#" | "change#", update: Partial<UpdateItemCommandInput>) {
  let broken = true;
  const effects: string[] = [];
  const made = await memoryConsumer((c) =>
    c.on("*", Operation.Create, (event) => {
      if (broken) throw new Error("poison");
      effects.push(String(event.row.id));
    }),
  );
  await made.handler(invocationOf(packed(chain(1, 2))), timeLeft());
  broken = false;
  const [item] = made.table.items(prefix);
  const Key = { pk: { S: item?.pk?.S ?? "" }, sk: { S: item?.sk?.S ?? "" } };
  await made.plain.send(new UpdateItemCommand({ TableName: "t", Key, ...update }));
  return { ...made, effects };
}

const set = (attribute: string, value: object) => ({
  UpdateExpression: "SET #a=:v",
  ExpressionAttributeNames: { "#a": attribute },
  ExpressionAttributeValues: { ":v": value as { S: string } },
});
const without = (attribute: string) => ({
  UpdateExpression: "REMOVE #a",
  ExpressionAttributeNames: { "#a": attribute },
});

describe("what stands in the state table and was altered is told, passed over by nobody, and holds nothing else up", () => {
  const letters: [string, Partial<UpdateItemCommandInput>][] = [
    ["a letter whose error is cut off", set("error", { S: '{"name":"Er' })],
    ["a letter whose error is none", set("error", { S: "[]" })],
    ["a letter without position", without("position")],
    ["a letter of another partition", set("partition", { N: "7" })],
    ["a letter whose attempts are a text", set("attempts", { S: "many" })],
    ["a letter whose applied is no position", set("applied", { S: "5" })],
  ];
  it.each(letters)("%s", async (_what, update) => {
    const { handler, effects, table, lines } = await altered("letter#", update);
    for (const request of [{ dryRun: true }, {}]) {
      const report = await handler({ tributary: "redrive", ...request }, timeLeft());
      expect(report).toMatchObject({ failed: 1, more: false });
      expect(report.letters).toContainEqual(
        expect.objectContaining({ outcome: "failed", error: "StateItemError", topic: "shop.public.orders" }),
      );
    }
    expect(effects.length).toBe(1);
    expect(table.items("change#").length).toBe(1);
    expect(JSON.stringify(lines)).toContain("STATE_ITEM");
  });

  const changes: [string, Partial<UpdateItemCommandInput>][] = [
    ["a change whose event is cut off", set("event", { S: '{"op":"c","after":{"id":"1"' })],
    ["a change whose event is another", set("event", { S: '{"op":"c"}' })],
    ["a change whose event is gone", without("event")],
    ["a change whose claim is none", set("claim", { S: '{"bucket":"b"}' })],
    ["a change without position", without("position")],
    ["a change at another position", set("position", { S: at(9) })],
  ];
  it.each(changes)("%s", async (_what, update) => {
    const { handler, effects, table } = await altered("change#", update);
    for (let i = 0; i < 2; i++) {
      const report = await handler({ tributary: "redrive" }, timeLeft());
      expect(report).toMatchObject({ failed: 1, more: false });
      expect(report.letters).toContainEqual(
        expect.objectContaining({ outcome: "failed", error: "StateItemError" }),
      );
    }
    expect(effects.length).toBe(1);
    expect(table.items("change#").length).toBe(1);
  });
});

describe("what stands in the fence and was altered", () => {
  const faults: [string, object][] = [
    ["a1", { S: '{"from":"00' }],
    ["a1", { S: "null" }],
    ["a1", { S: '{"from":"1","to":"2","count":1,"calls":1,"since":""}' }],
    ["m1", { S: "17" }],
    ["w1", { N: "1.5" }],
    ["k1", { S: "?unknown" }],
  ];
  it.each(faults)("%s: its partition waits alone, and the error says what", async (attribute, value) => {
    let broken = true;
    const effects: string[] = [];
    const { handler, plain, lines } = await memoryConsumer((c) =>
      c.on("*", Operation.Create, ({ partition, position }) => {
        if (broken) throw new Error("poison");
        effects.push(`${partition} ${position}`);
      }),
    );
    const record = (from: number, partition: number) => packed(chain(from, from), { partition });
    await handler(invocationOf(record(1, 0), record(1, 1), record(1, 2)), timeLeft());
    broken = false;
    const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
    const Key = { pk: { S: pk }, sk: { S: sk } };
    await plain.send(new UpdateItemCommand({ TableName: "t", Key, ...set(attribute, value) }));
    const second = { at: 2, after: 1, row: { id: "other" } };
    const records = [0, 1, 2].map((partition) => packed([second], { partition }));
    const answer = await handler(invocationOf(...records), timeLeft());
    expect(answer.batchItemFailures).toEqual([{ itemIdentifier: records[1]?.kinesis.sequenceNumber }]);
    expect(effects).toEqual([`0 ${at(2)}`, `2 ${at(2)}`]);
    expect(lines).toContainEqual(
      expect.objectContaining({
        ...{ consumer: "c", code: "STATE_ITEM", topic: TOPIC, partition: 1 },
        sequenceNumber: records[1]?.kinesis.sequenceNumber,
      }),
    );
    for (const dryRun of [true, false])
      expect(await handler({ tributary: "redrive", partition: 1, dryRun }, timeLeft())).toMatchObject({
        letters: [{ outcome: "failed", error: "StateItemError" }],
      });
    expect(await handler({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 2, failed: 1 });
  });
});

describe("a message in the redrive queue", () => {
  const letter = {
    consumer: "c",
    topic: "shop.public.orders",
    partition: 3,
    position: at(1),
    sequenceNumber: "17",
  };

  it("means the one change that its letter names", () => {
    expect(deadLetterRequest("m", JSON.stringify({ ...letter, version: 2, payload: {} }))).toEqual({
      tributary: "redrive",
      ...{ consumer: "c", topic: "shop.public.orders", partition: 3, position: at(1) },
    });
  });

  it.each<[string, string, RegExp]>([
    ["cut off", JSON.stringify(letter).slice(0, -5), /m cannot be redriven: it is not JSON/],
    ["a text", '"x"', /m cannot be redriven: its body: /],
    ["null", "null", /its body: /],
    [
      "of a record that could not be read",
      JSON.stringify({ ...letter, position: undefined, record: "AA==" }),
      /a record that could not be read \(consumer c, topic shop.public.orders, partition 3, sequenceNumber 17\)/,
    ],
    [
      "without topic",
      JSON.stringify({ ...letter, topic: undefined }),
      /topic: .*\(consumer c, partition 3, /,
    ],
    ["without partition", JSON.stringify({ ...letter, partition: undefined }), /partition: /],
    ["without consumer", JSON.stringify({ ...letter, consumer: "" }), /consumer: /],
    [
      "with a position of its own",
      JSON.stringify({ ...letter, position: "1" }),
      /position: expected a position/,
    ],
  ])("%s is refused, naming what it says of its origin", (_what, body, message) => {
    expect(() => deadLetterRequest("m", body)).toThrow(DeadLetterFormatError);
    expect(() => deadLetterRequest("m", body)).toThrow(message);
  });
});
