import { once } from "node:events";
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import {
  CreateStreamCommand,
  GetRecordsCommand,
  GetShardIteratorCommand,
  PutRecordsCommand,
  waitUntilStreamExists,
} from "@aws-sdk/client-kinesis";
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from "@aws-sdk/client-sqs";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { dynamodbClient, kinesisClient, sqsClient } from "../../lib/aws/clients.ts";
import { boundedKinesis } from "../../lib/local/emulators/bounded-kinesis.ts";
import { StreamLog } from "../../lib/local/emulators/stream-log.ts";
import { type Emulators, startEmulators } from "../../lib/local/emulators.ts";
import { createTable } from "../../lib/local/resources.ts";
import { eventually } from "../eventually.ts";

let directory: string;
let running: Emulators | undefined;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-kept-"));
});
afterEach(async () => {
  await running?.stop();
  await rm(directory, { recursive: true });
});

async function start() {
  running = await startEmulators({ directory });
  const { environment } = running;
  return {
    kinesis: kinesisClient(environment),
    dynamodb: dynamodbClient(environment),
    sqs: sqsClient(environment),
  };
}

/** As `kill -9` does: nothing is told to any of them. */
async function kill(): Promise<void> {
  for (const { pid } of [running?.kinesis, running?.dynamodb, running?.sqs].flatMap((one) => one ?? []))
    process.kill(pid, "SIGKILL");
  await running?.stop();
}

it("tells of one that ends by itself, and of none that is stopped", async () => {
  const ended: string[] = [];
  running = await startEmulators({ directory, onEnded: (service) => ended.push(service) });
  process.kill(running.dynamodb.pid, "SIGKILL");
  await eventually(() => ended.length > 0, { what: "word of its end" });
  await running.stop();
  expect(ended).toEqual(["dynamodb"]);
});

it("has what was confirmed again after kill -9, and what was deleted not", async () => {
  const first = await start();
  await createTable(first.dynamodb, "table", ["pk"]);
  await first.dynamodb.send(
    new PutItemCommand({ TableName: "table", Item: { pk: { S: "a" }, n: { N: "1" } } }),
  );
  await first.kinesis.send(new CreateStreamCommand({ StreamName: "stream", ShardCount: 1 }));
  await waitUntilStreamExists(
    { client: first.kinesis, maxWaitTime: 30, minDelay: 0.02 },
    { StreamName: "stream" },
  );
  const put = (kinesis: typeof first.kinesis, ...texts: string[]) =>
    kinesis.send(
      new PutRecordsCommand({
        StreamName: "stream",
        Records: texts.map((text) => ({ Data: Buffer.from(text), PartitionKey: "p" })),
      }),
    );
  await put(first.kinesis, "one", "two");
  const made = await first.sqs.send(new CreateQueueCommand({ QueueName: "letters" }));
  const QueueUrl = made.QueueUrl as string;
  await first.sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "kept" }));
  const Entries = ["gone", "stays"].map((MessageBody, i) => ({ Id: `${i}`, MessageBody }));
  await first.sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  const { Messages = [] } = await first.sqs.send(
    new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }),
  );
  const gone = Messages.find(({ Body }) => Body === "gone");
  await first.sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: gone?.ReceiptHandle }));
  await kill();
  // The line whose end was not written was never answered.
  const [segment] = (await readdir(join(directory, "kinesis"))).filter((name) => name.endsWith(".jsonl"));
  await appendFile(join(directory, "kinesis", segment as string), '{"stream":"stream","put":[["000');

  for (const round of [1, 2]) {
    const again = await start();
    const { Item } = await again.dynamodb.send(
      new GetItemCommand({ TableName: "table", Key: { pk: { S: "a" } } }),
    );
    expect(Item?.n).toEqual({ N: "1" });
    await put(again.kinesis, `round ${round}`);
    const { ShardIterator } = await again.kinesis.send(
      new GetShardIteratorCommand({
        StreamName: "stream",
        ShardId: "shardId-000000000000",
        ShardIteratorType: "TRIM_HORIZON",
      }),
    );
    const { Records = [] } = await again.kinesis.send(new GetRecordsCommand({ ShardIterator }));
    const expected = ["one", "two", "round 1", "round 2"].slice(0, 2 + round);
    expect(Records.map(({ Data }) => Buffer.from(Data ?? []).toString())).toEqual(expected);
    const numbers = Records.map(({ SequenceNumber }) => BigInt(SequenceNumber ?? 0));
    expect(numbers).toEqual([...numbers].sort((a, b) => (a < b ? -1 : 1)));
    const queue = await again.sqs.send(new CreateQueueCommand({ QueueName: "letters" }));
    const bodies: (string | undefined)[] = [];
    await eventually(
      async () => {
        const answer = await again.sqs.send(
          new ReceiveMessageCommand({ QueueUrl: queue.QueueUrl, MaxNumberOfMessages: 10 }),
        );
        bodies.push(...(answer.Messages ?? []).map(({ Body }) => Body));
        return bodies.length >= 2;
      },
      { what: () => `both letters: ${bodies}` },
    );
    expect(bodies.sort()).toEqual(["kept", "stays"]);
    await kill();
  }
  expect(await readFile(join(directory, "sqs", "messages.jsonl"), "utf8")).not.toContain("gone");
});

it("forgets what is in the segments of a stream's file once no record of them is kept", async () => {
  const { kinesis } = await start();
  await kinesis.send(new CreateStreamCommand({ StreamName: "stream", ShardCount: 1 }));
  await waitUntilStreamExists({ client: kinesis, maxWaitTime: 30, minDelay: 0.02 }, { StreamName: "stream" });
  const Records = Array.from({ length: 4 }, () => ({
    Data: Buffer.alloc(1_000_000, "x"),
    PartitionKey: "p",
  }));
  const segments = async () =>
    (await readdir(join(directory, "kinesis"))).filter((name) => name.endsWith(".jsonl"));
  // Beyond what is kept of a stream.
  for (let i = 0; i < 52; i++) await kinesis.send(new PutRecordsCommand({ StreamName: "stream", Records }));
  const [oldest] = (await segments()).sort();
  expect(Number(oldest?.slice(0, 8))).toBeGreaterThan(1);
  expect((await segments()).length).toBeLessThan(22);
}, 120_000);

/** A Kinesis emulator in this process, with one stream, that keeps what it holds in the directory. */
async function openStream(retainedBytes: number) {
  const log = new StreamLog(directory);
  const server = boundedKinesis(retainedBytes, log);
  await log.replay();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const kinesis = kinesisClient({
    AWS_ENDPOINT_URL_KINESIS: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ AWS_REGION: "us-east-1", AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local" },
  });
  const StreamName = "stream";
  await kinesis.send(new CreateStreamCommand({ StreamName, ShardCount: 1 })).catch((error: Error) => {
    if (error.name !== "ResourceInUseException") throw error;
  });
  await waitUntilStreamExists({ client: kinesis, maxWaitTime: 30, minDelay: 0.02 }, { StreamName });
  return {
    async put(...contents: readonly Buffer[]) {
      const Records = contents.map((Data) => ({ Data, PartitionKey: "p" }));
      await kinesis.send(new PutRecordsCommand({ StreamName, Records }));
    },
    async read() {
      const from = { ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON" as const };
      const { ShardIterator } = await kinesis.send(new GetShardIteratorCommand({ StreamName, ...from }));
      const { Records = [] } = await kinesis.send(new GetRecordsCommand({ ShardIterator }));
      return Records.map(({ Data }) => Buffer.from(Data ?? []).toString());
    },
    async close() {
      kinesis.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

it("forgets also what a start finds above the bound, where the last run was killed before it was written down", async () => {
  const records = (count: number) => Array.from({ length: count }, () => Buffer.alloc(100_000, "x"));
  const first = await openStream(10_000_000);
  await first.put(...records(30));
  await first.close();
  const second = await openStream(1_000_000);
  await second.put(...records(15));
  await second.close();
  // A segment goes when none of its records is kept.
  expect(await readdir(directory)).not.toContain("00000001.jsonl");
});

it("has what came before a pause longer than a stream keeps records: nobody could have read it meanwhile", async () => {
  const friday = await openStream(1_000_000);
  await friday.put(Buffer.from("unread"));
  await friday.close();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 10 * 24 * 60 * 60 * 1000 });
  try {
    for (let start = 1; start <= 2; start++) {
      const monday = await openStream(1_000_000);
      expect(await monday.read()).toEqual(["unread"]);
      await monday.close();
    }
  } finally {
    vi.useRealTimers();
  }
});

it("refuses a file with a damaged line in its middle, by name and line: what the line said would be missing in silence", async () => {
  const { sqs } = await start();
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: "dead" }));
  for (const MessageBody of ["a", "b"]) await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody }));
  await kill();
  const file = join(directory, "sqs", "messages.jsonl");
  const lines = (await readFile(file, "utf8")).split("\n");
  const line = 2;
  for (const damaged of [`${lines[line - 1]?.slice(0, -5)}`, '{"of":"another form"}']) {
    await writeFile(file, lines.with(line - 1, damaged).join("\n"));
    await expect(startEmulators({ directory })).rejects.toMatchObject({
      code: "DEV_FILE_DAMAGED",
      message: `${file} cannot be read: line ${line} is damaged`,
      remedy: expect.stringContaining("tributary dev --fresh"),
    });
  }
  await writeFile(file, lines.join("\n"));
  await start();
});
