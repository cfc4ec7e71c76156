import {
  type AttributeValue,
  BatchGetItemCommand,
  BatchWriteItemCommand,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { PutObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import {
  DeleteMessageBatchCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { s3Client } from "../../lib/aws/clients.ts";
import { emulatedAws } from "./emulated.ts";
import { emulatedS3 } from "./emulated-s3.ts";

/*
 * Each limit of AWS: a call at it is taken, one beyond it is refused with AWS's error, and noted, so that the test that sent it
 * fails unless it asks for what was refused.
 */
const aws = emulatedAws();

/** A call of a size: the largest that AWS takes is `limit`. */
interface Limit {
  readonly what: string;
  readonly limit: number;
  readonly send: (size: number) => Promise<unknown>;
  readonly code: string;
  readonly message: RegExp;
}

async function meets({ limit, send, code, message }: Limit): Promise<void> {
  await send(limit);
  expect(await aws().takeRefusals()).toEqual([]);
  await expect(send(limit + 1)).rejects.toMatchObject({
    name: code,
    message: expect.stringMatching(message),
  });
  expect(await aws().takeRefusals()).toMatchObject([{ code: expect.any(String) }]);
}

describe("DynamoDB", () => {
  let TableName: string;
  beforeAll(async () => {
    TableName = await aws().freshTable();
  });

  const put = (attributes: Record<string, AttributeValue>) =>
    aws().dynamodb.send(
      new PutItemCommand({ TableName, Item: { pk: { S: "p" }, sk: { S: "s" }, ...attributes } }),
    );
  const update = (
    UpdateExpression: string,
    names: Record<string, string>,
    values: Record<string, AttributeValue>,
  ) =>
    aws().dynamodb.send(
      new UpdateItemCommand({
        TableName,
        Key: { pk: { S: "p" }, sk: { S: `u${key++}`.padEnd(8, "-") } },
        UpdateExpression,
        ExpressionAttributeNames: names,
        ExpressionAttributeValues: values,
      }),
    );
  let key = 0;
  const text = (size: number) => "x".repeat(size);

  const limits: Limit[] = [
    {
      what: "an item of 400 KB",
      limit: 400 * 1024 - "pkpsksa".length,
      send: (size) => put({ a: { S: text(size) } }),
      code: "ValidationException",
      message: /^Item size has exceeded the maximum allowed size$/,
    },
    {
      what: "an updated item of 400 KB",
      limit: 400 * 1024 - "pkpsk12345678a".length,
      send: (size) => update("SET #a=:a", { "#a": "a" }, { ":a": { S: text(size) } }),
      code: "ValidationException",
      message: /^Item size to update has exceeded the maximum allowed size$/,
    },
    {
      what: "a hash key of 2,048 bytes",
      limit: 2048,
      send: (size) => put({ pk: { S: text(size) } }),
      code: "ValidationException",
      message: /hashkey has exceeded/,
    },
    {
      what: "a range key of 1,024 bytes",
      limit: 1024,
      send: (size) => put({ sk: { S: text(size) } }),
      code: "ValidationException",
      message: /range keys has exceeded/,
    },
    {
      what: "an expression of 4 KB",
      limit: 4096,
      // A condition of as many characters as are asked for.
      send: (size) =>
        aws().dynamodb.send(
          new PutItemCommand({
            TableName,
            Item: { pk: { S: "p" }, sk: { S: "s" } },
            ConditionExpression: `attribute_not_exists(${text(size - "attribute_not_exists()".length)})`,
          }),
        ),
      code: "ValidationException",
      message: /Expression size has exceeded the maximum allowed size; expression size: 4097/,
    },
    {
      what: "an expression of 300 operators",
      limit: 300,
      send: (size) =>
        update(
          `SET ${Array.from({ length: size }, (_, i) => `#a${i}=:n+:n`).join(",")}`,
          Object.fromEntries(Array.from({ length: size }, (_, i) => [`#a${i}`, `a${i}`])),
          { ":n": { N: "1" } },
        ),
      code: "ValidationException",
      message: /too many operators; operator count: 301/,
    },
    {
      what: "a placeholder of 255 bytes",
      limit: 255,
      send: (size) =>
        update(`SET #${text(size - 1)}=:a`, { [`#${text(size - 1)}`]: "b" }, { ":a": { S: "" } }),
      code: "ValidationException",
      message: /ExpressionAttributeNames contains invalid key/,
    },
    {
      what: "a number of 38 digits",
      limit: 38,
      send: (size) => put({ n: { N: "1".repeat(size) } }),
      code: "ValidationException",
      message: /more than 38 significant digits/,
    },
    {
      what: "a number below 1E126",
      limit: 125,
      send: (size) => put({ n: { N: `9e${size}` } }),
      code: "ValidationException",
      message: /Number overflow/,
    },
    {
      what: "32 levels",
      limit: 32,
      send: (size) => {
        let value: AttributeValue = { S: "leaf" };
        for (let level = 1; level < size; level++) value = { L: [value] };
        return put({ deep: value });
      },
      code: "ValidationException",
      message: /Nesting Levels/,
    },
    {
      what: "an IN of 100 operands",
      limit: 100,
      send: (size) =>
        aws().dynamodb.send(
          new QueryCommand({
            TableName,
            KeyConditionExpression: "pk=:p",
            FilterExpression: `a IN (${Array.from({ length: size }, () => ":p").join(",")})`,
            ExpressionAttributeValues: { ":p": { S: "nothing" } },
          }),
        ),
      code: "ValidationException",
      message: /too many operands; number of operands: 101/,
    },
  ];
  const batches: Limit[] = [
    {
      what: "a batch of 25 puts",
      limit: 25,
      send: (size) =>
        aws().dynamodb.send(
          new BatchWriteItemCommand({
            RequestItems: {
              [TableName]: Array.from({ length: size }, (_, i) => ({
                PutRequest: { Item: { pk: { S: "batch" }, sk: { S: String(i) } } },
              })),
            },
          }),
        ),
      code: "ValidationException",
      message: /less than or equal to 25|Too many items/,
    },
    {
      what: "a batch of 100 gets",
      limit: 100,
      send: (size) =>
        aws().dynamodb.send(
          new BatchGetItemCommand({
            RequestItems: {
              [TableName]: {
                Keys: Array.from({ length: size }, (_, i) => ({ pk: { S: "batch" }, sk: { S: String(i) } })),
              },
            },
          }),
        ),
      code: "ValidationException",
      message: /less than or equal to 100|Too many items/,
    },
  ];
  test.each([...limits, ...batches])("takes $what, and refuses more", meets);

  test.each(["pk", "sk"])("refuses an empty %s", async (name) => {
    await expect(put({ [name]: { S: "" } })).rejects.toMatchObject({
      name: "ValidationException",
      message: expect.stringContaining("cannot contain an empty string value"),
    });
    expect(await aws().takeRefusals()).toHaveLength(1);
  });
});

describe("Kinesis", () => {
  let StreamName: string;
  beforeAll(async () => {
    StreamName = await aws().freshStream();
  });
  const put = (records: { data?: number; key?: string; hash?: string }[], name = StreamName) =>
    aws().kinesis.send(
      new PutRecordsCommand({
        StreamName: name,
        Records: records.map(({ data = 1, key = "k", hash }) => ({
          Data: Buffer.alloc(data),
          PartitionKey: key,
          ...(hash === undefined ? {} : { ExplicitHashKey: hash }),
        })),
      }),
    );
  const MIB = 1024 * 1024;
  const limits: Limit[] = [
    {
      what: "500 records",
      limit: 500,
      send: (size) => put(Array.from({ length: size }, () => ({}))),
      code: "ValidationException",
      message: /less than or equal to 500/,
    },
    {
      what: "1 MiB a record with its key",
      limit: MIB - 3,
      send: (size) => put([{ data: size, key: "key" }]),
      code: "ValidationException",
      message: /less than or equal to 1048576/,
    },
    {
      what: "5 MiB a request with its keys",
      limit: MIB - 1,
      send: (size) => put([...Array.from({ length: 5 }, (_, i) => ({ data: i === 4 ? size : MIB - 1 }))]),
      code: "InvalidArgumentException",
      message: /5 ?MB/,
    },
    {
      what: "a partition key of 256 characters",
      limit: 256,
      send: (size) => put([{ key: "k".repeat(size) }]),
      code: "ValidationException",
      message: /less than or equal to 256/,
    },
  ];
  test.each(limits)("takes $what, and refuses more", meets);

  test("refuses an explicit hash key of 2^128", async () => {
    await put([{ hash: (2n ** 128n - 1n).toString() }]);
    await expect(put([{ hash: (2n ** 128n).toString() }])).rejects.toMatchObject({
      name: "InvalidArgumentException",
    });
    expect(await aws().takeRefusals()).toHaveLength(1);
  });

  test("refuses a stream name of other characters", async () => {
    await expect(put([{}], "shop/orders")).rejects.toMatchObject({ name: "ValidationException" });
    expect(await aws().takeRefusals()).toHaveLength(1);
  });
});

describe("SQS", () => {
  let QueueUrl: string;
  beforeAll(async () => {
    QueueUrl = await aws().freshQueue({ MaximumMessageSize: String(1024 * 1024) });
  });
  const send = (
    MessageBody: string,
    MessageAttributes?: Record<string, { DataType: string; StringValue: string }>,
  ) => aws().sqs.send(new SendMessageCommand({ QueueUrl, MessageBody, MessageAttributes }));

  const limits: Limit[] = [
    {
      what: "a message of 1 MiB with its attributes",
      limit: 1024 * 1024 - "nameStringvalue".length,
      send: (size) => send("x".repeat(size), { name: { DataType: "String", StringValue: "value" } }),
      code: "InvalidParameterValue",
      message: /must be shorter than 1048576 bytes/,
    },
    {
      what: "ten attributes",
      limit: 10,
      send: (size) =>
        send(
          "x",
          Object.fromEntries(
            Array.from({ length: size }, (_, i) => [`a${i}`, { DataType: "String", StringValue: "v" }]),
          ),
        ),
      code: "InvalidParameterValue",
      message: /exceeds the allowed maximum/,
    },
    {
      what: "a batch of ten messages",
      limit: 10,
      send: (size) =>
        aws().sqs.send(
          new SendMessageBatchCommand({
            QueueUrl,
            Entries: Array.from({ length: size }, (_, i) => ({ Id: String(i), MessageBody: "x" })),
          }),
        ),
      code: "TooManyEntriesInBatchRequest",
      message: /Maximum number of entries per request are 10. You have sent 11/,
    },
    {
      what: "a batch of ten deletions",
      limit: 10,
      send: (size) =>
        aws().sqs.send(
          new DeleteMessageBatchCommand({
            QueueUrl,
            Entries: Array.from({ length: size }, (_, i) => ({ Id: String(i), ReceiptHandle: "AAAA" })),
          }),
        ),
      code: "TooManyEntriesInBatchRequest",
      message: /Maximum number of entries per request are 10. You have sent 11/,
    },
    {
      what: "to receive ten messages",
      limit: 10,
      send: (size) =>
        aws().sqs.send(
          new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: size, VisibilityTimeout: 0 }),
        ),
      code: "InvalidParameterValue",
      message: /Must be between 1 and 10/,
    },
    {
      what: "to wait 20 s for messages",
      limit: 20,
      // The queue has messages: nothing is waited for.
      send: async (size) => {
        await send("x");
        await aws().sqs.send(
          new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: size, VisibilityTimeout: 0 }),
        );
      },
      code: "InvalidParameterValue",
      message: /Must be >= 0 and <= 20/,
    },
  ];
  test.each(limits)("takes $what, and refuses more", meets);

  const characters: readonly [taken: boolean, ...code: number[]][] = [
    [true, 0x9, 0xa, 0xd, 0x20, 0x7f, 0x85, 0xd7ff, 0xe000, 0xfffd, 0x10000, 0x1ffff, 0x10ffff],
    [false, 0x0, 0x1, 0x8, 0xb, 0xc, 0xe, 0x1b, 0x1f, 0xfffe, 0xffff],
  ];
  test.each(characters)("of characters: taken %s", async (taken, ...codes) => {
    for (const code of codes) {
      const sent = send(`a${String.fromCodePoint(code)}b`);
      if (taken) await sent;
      else await expect(sent, code.toString(16)).rejects.toMatchObject({ name: "InvalidMessageContents" });
    }
    expect(await aws().takeRefusals()).toHaveLength(taken ? 0 : codes.length);
  });

  test("refuses an empty message", async () => {
    await expect(send("")).rejects.toMatchObject({ name: "MissingParameter" });
    expect(await aws().takeRefusals()).toHaveLength(1);
  });
});

describe("S3", () => {
  const s3 = emulatedS3();
  let client: S3Client;
  beforeAll(async () => {
    client = await s3Client(s3().environment);
  });
  afterAll(() => client?.destroy());
  const put = (Key: string, Metadata: Record<string, string>) =>
    client.send(new PutObjectCommand({ Bucket: s3().bucket, Key, Body: "x", Metadata }));
  /** A key of so many bytes whose parts a file system takes. */
  const keyOf = (bytes: number) => "k".repeat(200).concat("/").repeat(6).slice(0, bytes);

  test("takes keys of 1,024 bytes, and refuses longer ones", async () => {
    await put(keyOf(1024), {});
    await expect(put(keyOf(1025), {})).rejects.toMatchObject({ name: "KeyTooLongError" });
    expect(s3().takeRefusals()).toMatchObject([{ code: "KeyTooLongError" }]);
  });

  test("takes 2 KB of metadata, and refuses more", async () => {
    await put("key", { a: "m".repeat(2047) });
    await expect(put("key", { a: "m".repeat(2048) })).rejects.toMatchObject({ name: "MetadataTooLarge" });
    expect(s3().takeRefusals()).toMatchObject([{ code: "MetadataTooLarge" }]);
  });
});
