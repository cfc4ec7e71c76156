import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";
import { type KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { SendMessageCommand } from "@aws-sdk/client-sqs";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { dynamodbClient, kinesisClient, sqsClient } from "../../lib/aws/clients.ts";

/** A service that fails in a way the SDK likes to retry, and counts what reaches it. */
let service: Server;
let requests = 0;
let fail: "throttle" | "drop" | "500" = "throttle";

beforeEach(async () => {
  requests = 0;
  service = createServer((request, response) => {
    request.resume().on("end", () => {
      requests++;
      if (fail === "drop") return request.socket.destroy();
      response.statusCode = fail === "500" ? 500 : 400;
      response.setHeader("content-type", "application/x-amz-json-1.1");
      response.end(
        JSON.stringify({ __type: "ProvisionedThroughputExceededException", message: "slow down" }),
      );
    });
  });
  service.listen(0, "127.0.0.1");
  await once(service, "listening");
  const { port } = service.address() as { port: number };
  vi.stubEnv("AWS_ENDPOINT_URL", `http://127.0.0.1:${port}`);
  vi.stubEnv("AWS_REGION", "us-east-1");
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
});
afterEach(() => {
  vi.unstubAllEnvs();
  service.closeAllConnections();
  service.close();
});

const put = (client: KinesisClient) =>
  client.send(
    new PutRecordsCommand({
      StreamName: "s",
      Records: [{ Data: Buffer.from("x"), PartitionKey: "p", ExplicitHashKey: "0" }],
    }),
  );
const get = (client: DynamoDBClient) =>
  client.send(new GetItemCommand({ TableName: "t", Key: { pk: { S: "p" }, sk: { S: "s" } } }));

describe.each(["throttle", "drop", "500"] as const)("an answer of kind %s", (kind) => {
  beforeEach(() => {
    fail = kind;
  });

  describe.each([
    {},
    { AWS_MAX_ATTEMPTS: "5" },
    { AWS_RETRY_MODE: "standard", AWS_MAX_ATTEMPTS: "4" },
    { AWS_RETRY_MODE: "adaptive", AWS_MAX_ATTEMPTS: "4" },
  ])("in the environment %j", (environment) => {
    beforeEach(() => {
      for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
    });

    test("ends a Kinesis request after one try", async () => {
      await expect(put(kinesisClient())).rejects.toThrow();
      expect(requests).toBe(1);
    });

    test("ends a DynamoDB request after one try", async () => {
      await expect(get(dynamodbClient())).rejects.toThrow();
      expect(requests).toBe(1);
    });
  });
});

test("SQS tries three times", async () => {
  fail = "500";
  const send = new SendMessageCommand({ QueueUrl: `${process.env.AWS_ENDPOINT_URL}/1/q`, MessageBody: "x" });
  await expect(sqsClient().send(send)).rejects.toThrow();
  expect(requests).toBe(3);
});

test("a given environment stands in for the process's own", async () => {
  const environment = { ...process.env };
  vi.stubEnv("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
  vi.stubEnv("AWS_REGION", undefined);
  vi.stubEnv("AWS_ACCESS_KEY_ID", undefined);
  await expect(put(kinesisClient(environment))).rejects.toThrow();
  await expect(get(dynamodbClient(environment))).rejects.toThrow();
  expect(requests).toBe(2);
});

test("an endpoint of one service is stronger than the endpoint of all", async () => {
  const environment = {
    ...process.env,
    AWS_ENDPOINT_URL: "http://127.0.0.1:1",
    AWS_ENDPOINT_URL_KINESIS: process.env.AWS_ENDPOINT_URL,
  };
  await expect(put(kinesisClient(environment))).rejects.toThrow();
  expect(requests).toBe(1);
});
