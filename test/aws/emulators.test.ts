import { fork } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import {
  ConditionalCheckFailedException,
  DeleteItemCommand,
  GetItemCommand,
  PutItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import {
  CreateStreamCommand,
  DescribeStreamCommand,
  GetRecordsCommand,
  GetShardIteratorCommand,
  PutRecordsCommand,
} from "@aws-sdk/client-kinesis";
import { DeleteMessageCommand, ReceiveMessageCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import { afterEach, describe, expect, test } from "vitest";
import { kinesisClient } from "../../lib/aws/clients.ts";
import { startServingChild } from "../../lib/local/child.ts";
import { boundedKinesis } from "../../lib/local/emulators/bounded-kinesis.ts";
import { type Emulators, startEmulators } from "../../lib/local/emulators.ts";
import { ChildStartError } from "../../lib/local/local-errors.ts";
import { eventually } from "../eventually.ts";
import { emulatedAws } from "./emulated.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

describe("emulated AWS", () => {
  const aws = emulatedAws();

  test("Kinesis keeps bytes, keys and order of a shard, and puts an explicit hash key where it belongs", async () => {
    const { kinesis, freshStream } = aws();
    const StreamName = await freshStream(2);
    const data = Buffer.from([0, 255, 13, 10, 0xc3, 0x28]);
    const half = 2n ** 127n;
    const put = await kinesis.send(
      new PutRecordsCommand({
        StreamName,
        Records: [half, 0n, half + 1n].map((key, i) => ({
          Data: Buffer.concat([data, Buffer.from([i])]),
          PartitionKey: "shop.public.orders/1",
          ExplicitHashKey: key.toString(),
        })),
      }),
    );
    expect(put.Records?.map((r) => r.ShardId?.slice(-1))).toEqual(["1", "0", "1"]);
    const iterator = await kinesis.send(
      new GetShardIteratorCommand({
        StreamName,
        ShardId: put.Records?.[0]?.ShardId,
        ShardIteratorType: "TRIM_HORIZON",
      }),
    );
    const got = await kinesis.send(new GetRecordsCommand({ ShardIterator: iterator.ShardIterator }));
    expect(got.Records?.map((r) => [...(r.Data ?? [])])).toEqual([
      [...data, 0],
      [...data, 2],
    ]);
    expect(got.Records?.[0]?.PartitionKey).toBe("shop.public.orders/1");
    expect(got.Records?.[0]?.ApproximateArrivalTimestamp).toBeInstanceOf(Date);
  });

  test("a stream has the shards asked for", async () => {
    const StreamName = await aws().freshStream(40);
    const described = await aws().kinesis.send(new DescribeStreamCommand({ StreamName }));
    expect(described.StreamDescription?.Shards).toHaveLength(40);
  });

  test("DynamoDB lets one of many racing conditional updates win", async () => {
    const { dynamodb, freshTable } = aws();
    const TableName = await freshTable();
    const Key = { pk: { S: "p" }, sk: { S: "s" } };
    await dynamodb.send(new PutItemCommand({ TableName, Item: { ...Key, token: { N: "0" } } }));
    const results = await Promise.allSettled(
      Array.from({ length: 50 }, (_, i) =>
        dynamodb.send(
          new UpdateItemCommand({
            TableName,
            Key,
            UpdateExpression: "SET #t = :mine",
            ConditionExpression: "#t = :old",
            ExpressionAttributeNames: { "#t": "token" },
            ExpressionAttributeValues: { ":mine": { N: String(i + 1) }, ":old": { N: "0" } },
          }),
        ),
      ),
    );
    const won = results.filter((r) => r.status === "fulfilled");
    const refused = results.filter(
      (r) => r.status === "rejected" && r.reason instanceof ConditionalCheckFailedException,
    );
    expect([won.length, refused.length]).toEqual([1, 49]);
    await dynamodb.send(new DeleteItemCommand({ TableName, Key }));
    expect((await dynamodb.send(new GetItemCommand({ TableName, Key }))).Item).toBeUndefined();
  });

  test("SQS gives back what was sent, until it is deleted", async () => {
    const { sqs, freshQueue } = aws();
    const QueueUrl = await freshQueue();
    const body = JSON.stringify({ text: 'ü "quoted" \u2028 <xml/>' });
    await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: body }));
    const received = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 5 }));
    expect(received.Messages?.map((m) => m.Body)).toEqual([body]);
    await sqs.send(
      new DeleteMessageCommand({ QueueUrl, ReceiptHandle: received.Messages?.[0]?.ReceiptHandle }),
    );
    expect((await sqs.send(new ReceiveMessageCommand({ QueueUrl }))).Messages ?? []).toEqual([]);
  });
});

test("Kinesis forgets the oldest records above its bound, and only those", async () => {
  const server = boundedKinesis(100_000);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(async () => server.close(() => {}));
  const kinesis = kinesisClient({
    AWS_ENDPOINT_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
  });
  cleanups.push(async () => kinesis.destroy());
  const StreamName = "bounded";
  await kinesis.send(new CreateStreamCommand({ StreamName, ShardCount: 1 }));
  const read = async () => {
    const iterator = await kinesis.send(
      new GetShardIteratorCommand({
        StreamName,
        ShardId: "shardId-000000000000",
        ShardIteratorType: "TRIM_HORIZON",
      }),
    );
    const got = await kinesis.send(new GetRecordsCommand({ ShardIterator: iterator.ShardIterator }));
    return (got.Records ?? []).map((r) => Number(r.PartitionKey));
  };
  await eventually(
    async () => {
      const { StreamDescription } = await kinesis.send(new DescribeStreamCommand({ StreamName }));
      return StreamDescription?.StreamStatus === "ACTIVE";
    },
    { what: "the stream to be active" },
  );
  const put = (from: number, count: number) =>
    kinesis.send(
      new PutRecordsCommand({
        StreamName,
        Records: Array.from({ length: count }, (_, i) => ({
          Data: Buffer.alloc(750),
          PartitionKey: String(from + i),
        })),
      }),
    );
  // 750 bytes are 1,000 in base64: a hundred records fit.
  await put(0, 100);
  expect(await read()).toEqual(Array.from({ length: 100 }, (_, i) => i));
  await put(100, 1);
  await eventually(async () => (await read()).length === 75, { what: "a quarter to be forgotten" });
  expect(await read()).toEqual(Array.from({ length: 75 }, (_, i) => 26 + i));
});

describe("the emulators", () => {
  test("listen on loopback and nowhere else", async () => {
    const emulators = await start();
    for (const { endpoint } of [emulators.kinesis, emulators.dynamodb, emulators.sqs]) {
      const { hostname, port } = new URL(endpoint);
      expect(hostname).toBe("127.0.0.1");
      expect(await listeners(Number(port))).toEqual(["0100007F"]);
    }
  });

  test("end with stop, and stop again does nothing", async () => {
    const emulators = await start();
    const pids = [emulators.kinesis.pid, emulators.dynamodb.pid, emulators.sqs.pid];
    await emulators.stop();
    await emulators.stop();
    expect(pids.filter(isAlive)).toEqual([]);
  });

  test("end when the process that started them is killed with -9", async () => {
    const host = fork(fileURLToPath(new URL("./host.ts", import.meta.url)), [], { execArgv: [] });
    const [pids] = (await once(host, "message")) as [number[]];
    expect(pids.filter(isAlive)).toHaveLength(3);
    host.kill("SIGKILL");
    await eventually(() => pids.filter(isAlive).length === 0, { what: "the emulators to end" });
  });

  test("whose start is given up are gone", async () => {
    const abort = new AbortController();
    const starting = startEmulators({ signal: abort.signal });
    abort.abort(new Error("changed my mind"));
    await expect(starting).rejects.toThrow("changed my mind");
    expect(await emulatorsOfOurs()).toEqual([]);
  });

  test("one that cannot start is an error with what it said", async () => {
    const failure = await startServingChild(new URL("./no-such-file.ts", import.meta.url)).catch(
      (error) => error,
    );
    expect(failure).toBeInstanceOf(ChildStartError);
    expect(failure.message).toContain("no-such-file.ts");
  });
});

async function start(): Promise<Emulators> {
  const emulators = await startEmulators();
  cleanups.push(() => emulators.stop());
  return emulators;
}

/** Emulators whose parent is this process. */
async function emulatorsOfOurs(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (status.includes(`PPid:\t${process.pid}\n`) && command.includes("lib/local/emulators"))
      found.push(pid);
  }
  return found;
}

/** Local addresses, in hex, of the sockets that listen on a port. */
async function listeners(port: number): Promise<string[]> {
  const tables = await Promise.all(
    ["tcp", "tcp6"].map((name) => readFile(`/proc/net/${name}`, "utf8").catch(() => "")),
  );
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return tables
    .flatMap((table) => table.split("\n").slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(suffix) && state === "0A")
    .map(([, local]) => (local as string).slice(0, -suffix.length));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
