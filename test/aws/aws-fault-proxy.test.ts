import { GetItemCommand } from "@aws-sdk/client-dynamodb";
import { PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { afterEach, expect, test } from "vitest";
import { dynamodbClient, kinesisClient, sqsClient } from "../../lib/aws/clients.ts";
import { eventTail, RECORD_TAIL, recordHead } from "../../lib/change/record.ts";
import { type AwsCall, AwsFaultProxy, type ChooseFault } from "../../lib/testing/fault/aws-proxy.ts";
import { failEntries } from "../../lib/testing/fault/put-records.ts";
import { eventually } from "../eventually.ts";
import { change } from "../stream/changes.ts";
import { emulatedAws } from "./emulated.ts";
import { readStream } from "./stream-records.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

type Service = "KINESIS" | "DYNAMODB" | "SQS";

async function behindProxy(service: Service, choose: ChooseFault) {
  const { environment } = aws();
  const variable = `AWS_ENDPOINT_URL_${service}`;
  const target = environment[variable] ?? environment.AWS_ENDPOINT_URL ?? "";
  const proxy = await AwsFaultProxy.start({ target, choose });
  cleanups.push(() => proxy.stop());
  return { ...environment, [variable]: proxy.endpoint };
}

/** Puts records of these partitions through a proxy with a fault; gives the answer or error, and what was stored. */
async function put(choose: ChooseFault, partitions = [0]) {
  const kinesis = kinesisClient(await behindProxy("KINESIS", choose));
  cleanups.unshift(() => kinesis.destroy());
  const StreamName = await aws().freshStream();
  const topic = { name: "orders", partitions: 8 };
  const Records = partitions.map((partition) => {
    const head = recordHead({ topic: topic.name, partition, writer: 1 });
    const event = change(topic, partition, 16n, 1).json + eventTail(null);
    return { PartitionKey: `orders/${partition}`, Data: Buffer.from(head + event + RECORD_TAIL) };
  });
  const outcome = await kinesis
    .send(new PutRecordsCommand({ StreamName, Records }), { abortSignal: AbortSignal.timeout(1_000) })
    .then(
      (answer) => answer.Records?.map((record) => record.ErrorCode ?? "stored"),
      (error: Error) => error.name,
    );
  const stored = async () => (await readStream(aws().kinesis, StreamName)).map((r) => r.record.partition);
  return { outcome, stored };
}

test("without a fault calls pass, and the chooser sees service, operation, body and number", async () => {
  const calls: AwsCall[] = [];
  const see = (call: AwsCall) => void calls.push(call);
  const { outcome, stored } = await put(see);
  expect(outcome).toEqual(["stored"]);
  expect(await stored()).toEqual([0]);

  const dynamodb = dynamodbClient(await behindProxy("DYNAMODB", see));
  const sqs = sqsClient(await behindProxy("SQS", see));
  cleanups.unshift(
    () => dynamodb.destroy(),
    () => sqs.destroy(),
  );
  const TableName = await aws().freshTable();
  await dynamodb.send(new GetItemCommand({ TableName, Key: { pk: { S: "a" }, sk: { S: "b" } } }));
  const QueueUrl = await aws().freshQueue();
  await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
  expect(calls.map(({ service, operation, number }) => [service, operation, number])).toEqual([
    ["kinesis", "PutRecords", 1],
    ["dynamodb", "GetItem", 1],
    ["sqs", "GetQueueAttributes", 1],
  ]);
  expect(calls[1]?.body).toMatchObject({ TableName });
});

test("error: the client gets it, nothing is stored", async () => {
  const { outcome, stored } = await put(() => ({
    kind: "error",
    status: 400,
    code: "ExpiredTokenException",
  }));
  expect(outcome).toBe("ExpiredTokenException");
  expect(await stored()).toEqual([]);
});

test("cut: no answer, nothing is stored", async () => {
  const { outcome, stored } = await put(() => ({ kind: "cut" }));
  // The SDK names a connection that was reset so.
  expect(outcome).toBe("TimeoutError");
  expect(await stored()).toEqual([]);
});

test("hang: no answer, nothing is stored", async () => {
  const { outcome, stored } = await put(() => ({ kind: "hang" }));
  expect(outcome).toBe("AbortError");
  expect(await stored()).toEqual([]);
});

test("loseAnswer: no answer, stored", async () => {
  const { outcome, stored } = await put(() => ({ kind: "loseAnswer" }));
  // The SDK names a connection that was reset so.
  expect(outcome).toBe("TimeoutError");
  expect(await stored()).toEqual([0]);
});

test("late: no answer, stored afterwards", async () => {
  const { outcome, stored } = await put(() => ({ kind: "late", ms: 300 }));
  // The SDK names a connection that was reset so.
  expect(outcome).toBe("TimeoutError");
  expect(await stored()).toEqual([]);
  await eventually(async () => (await stored()).length === 1, { what: "the late record" });
});

test("duplicate: one answer, stored twice", async () => {
  const { outcome, stored } = await put(() => ({ kind: "duplicate" }));
  expect(outcome).toEqual(["stored"]);
  expect(await stored()).toEqual([0, 0]);
});

test("slow: stored and answered", async () => {
  const { outcome, stored } = await put(() => ({ kind: "slow", ms: 50 }));
  expect(outcome).toEqual(["stored"]);
  expect(await stored()).toEqual([0]);
});

test("failEntries: the chosen fail, those before and after are stored", async () => {
  const { outcome, stored } = await put(
    (call) => failEntries(call, ({ PartitionKey }) => PartitionKey === "orders/1"),
    [0, 1, 2],
  );
  expect(outcome).toEqual(["stored", "ProvisionedThroughputExceededException", "stored"]);
  expect((await stored()).toSorted()).toEqual([0, 2]);
});

test("failEntries: all of them", async () => {
  const { outcome, stored } = await put((call) => failEntries(call, () => true, "InternalFailure"), [0, 1]);
  expect(outcome).toEqual(["InternalFailure", "InternalFailure"]);
  expect(await stored()).toEqual([]);
});
