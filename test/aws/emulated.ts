import { randomBytes } from "node:crypto";
import {
  CreateTableCommand,
  DeleteTableCommand,
  DescribeTableCommand,
  type DynamoDBClient,
} from "@aws-sdk/client-dynamodb";
import {
  CreateStreamCommand,
  DeleteStreamCommand,
  DescribeStreamSummaryCommand,
  type KinesisClient,
} from "@aws-sdk/client-kinesis";
import { CreateQueueCommand, DeleteQueueCommand, type SQSClient } from "@aws-sdk/client-sqs";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { dynamodbClient, kinesisClient, sqsClient } from "../../lib/aws/clients.ts";
import { type Emulators, type RefusedCall, startEmulators } from "../../lib/local/emulators.ts";
import { eventually } from "../eventually.ts";

/** AWS as the tests of one file see it: any implementation behind `AWS_ENDPOINT_URL`, or our own emulators. */
export interface EmulatedAws {
  /** For `kinesisClient(environment)` and its like, and for child processes. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly kinesis: KinesisClient;
  readonly dynamodb: DynamoDBClient;
  readonly sqs: SQSClient;
  /** Creates a stream, waits until it is active, gives its name. */
  freshStream(shards?: number): Promise<string>;
  /** Creates a table with hash key `pk` and range key `sk`, both strings; gives its name. */
  freshTable(): Promise<string>;
  /** Creates a standard queue, gives its URL. */
  freshQueue(attributes?: Record<string, string>): Promise<string>;
  /** Returns the calls that AWS would have refused, and pardons them: any other fails the test that sent it. */
  takeRefusals(): Promise<readonly RefusedCall[]>;
}

/**
 * Emulated AWS for a test file: call it once at the top, use what it gives inside tests and hooks. What the
 * tests created is deleted at the end.
 */
export function emulatedAws(): () => EmulatedAws {
  let emulators: Emulators | undefined;
  let aws: EmulatedAws | undefined;
  const cleanups: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    const foreign = process.env.AWS_ENDPOINT_URL !== undefined;
    if (!foreign) emulators = await startEmulators();
    const environment = emulators?.environment ?? {
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      ...process.env,
    };
    const takeRefusals = async () => (await emulators?.takeRefusals()) ?? [];
    aws = { ...connect(environment, foreign ? cleanups : undefined), takeRefusals };
  });
  afterEach(async () => {
    expect(await emulators?.takeRefusals(), "calls that AWS refuses").toEqual(emulators && []);
  });
  afterAll(async () => {
    await Promise.allSettled(cleanups.map((cleanup) => cleanup()));
    aws?.kinesis.destroy();
    aws?.dynamodb.destroy();
    aws?.sqs.destroy();
    await emulators?.stop();
  });
  return () => {
    if (aws === undefined) throw new Error("emulated AWS runs only inside tests and hooks");
    return aws;
  };
}

/** `cleanups` collects what must be deleted where the endpoint outlives the tests. */
function connect(
  environment: EmulatedAws["environment"],
  cleanups?: (() => Promise<unknown>)[],
): Omit<EmulatedAws, "takeRefusals"> {
  const kinesis = kinesisClient(environment);
  const dynamodb = dynamodbClient(environment);
  const sqs = sqsClient(environment);
  return {
    environment,
    kinesis,
    dynamodb,
    sqs,
    async freshStream(shards = 1) {
      const StreamName = freshName("stream");
      await kinesis.send(new CreateStreamCommand({ StreamName, ShardCount: shards }));
      cleanups?.push(() => kinesis.send(new DeleteStreamCommand({ StreamName })));
      await eventually(
        async () => {
          const described = await kinesis.send(new DescribeStreamSummaryCommand({ StreamName }));
          return described.StreamDescriptionSummary?.StreamStatus === "ACTIVE";
        },
        { what: `stream ${StreamName} to be active` },
      );
      return StreamName;
    },
    async freshTable() {
      const TableName = freshName("table");
      await dynamodb.send(
        new CreateTableCommand({
          TableName,
          BillingMode: "PAY_PER_REQUEST",
          AttributeDefinitions: [
            { AttributeName: "pk", AttributeType: "S" },
            { AttributeName: "sk", AttributeType: "S" },
          ],
          KeySchema: [
            { AttributeName: "pk", KeyType: "HASH" },
            { AttributeName: "sk", KeyType: "RANGE" },
          ],
        }),
      );
      cleanups?.push(() => dynamodb.send(new DeleteTableCommand({ TableName })));
      await eventually(
        async () => {
          const described = await dynamodb.send(new DescribeTableCommand({ TableName }));
          return described.Table?.TableStatus === "ACTIVE";
        },
        { what: `table ${TableName} to be active` },
      );
      return TableName;
    },
    async freshQueue(attributes) {
      const created = await sqs.send(
        new CreateQueueCommand({ QueueName: freshName("queue"), Attributes: attributes }),
      );
      const QueueUrl = created.QueueUrl as string;
      cleanups?.push(() => sqs.send(new DeleteQueueCommand({ QueueUrl })));
      return QueueUrl;
    },
  };
}

function freshName(kind: string): string {
  return `tributary-test-${kind}-${randomBytes(6).toString("hex")}`;
}
