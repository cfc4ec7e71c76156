import { CreateTableCommand, type DynamoDBClient, waitUntilTableExists } from "@aws-sdk/client-dynamodb";
import {
  CreateStreamCommand,
  IncreaseStreamRetentionPeriodCommand,
  type KinesisClient,
  waitUntilStreamExists,
} from "@aws-sdk/client-kinesis";
import { CreateQueueCommand, type SQSClient } from "@aws-sdk/client-sqs";
import { CAPTURE_DEAD_LETTER_VARIABLE } from "../capture/dead-letters.ts";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";

/** The clients of one environment. */
export interface AwsClients {
  readonly kinesis: KinesisClient;
  readonly dynamodb: DynamoDBClient;
  readonly sqs: SQSClient;
}

/** The resources that `cdk deploy` makes in AWS, made in the emulators. */
export interface PipelineResources {
  readonly stream: string;
  readonly stateTable: string;
  /** URL of the dead-letter queue, by consumer. */
  readonly deadLetterQueues: ReadonlyMap<string, string>;
  /** Variables that name them all for the capture task. */
  readonly captureEnvironment: Readonly<Record<string, string>>;
}

/** An on-demand stream starts with 4 shards in AWS; here every shard costs a process of each consumer. */
export const ON_DEMAND_SHARDS = 1;
/** AWS's limit since 2025; dead letters carry whole events. */
const LARGEST_MESSAGE = String(1024 * 1024);

/** Retention of a new stream, and the emulator's maximum. */
const FIRST_HOURS = 24;
const EMULATED_HOURS = 168;

/** In seconds. */
const WAIT = { maxWaitTime: 60, minDelay: 0.02, maxDelay: 0.5 };

/** Makes stream, state table and dead-letter queues of a pipeline, where they are not there already. */
export async function createResources(definition: Pipeline, aws: AwsClients): Promise<PipelineResources> {
  const stream = `tributary-${definition.name}`;
  const stateTable = `tributary-${definition.name}`;
  const [, , queues, aside] = await Promise.all([
    createStream(aws.kinesis, stream, definition.stream),
    createTable(aws.dynamodb, stateTable, ["pk", "sk"]),
    Promise.all(
      definition.consumers.map(
        async ({ name }) =>
          [name, await createQueue(aws.sqs, `tributary-${definition.name}-${name}-dead-letters`)] as const,
      ),
    ),
    sourceKind(definition.source).can.putAside
      ? createQueue(aws.sqs, `tributary-${definition.name}-put-aside`)
      : undefined,
  ]);
  const captureEnvironment = {
    TRIBUTARY_STREAM: stream,
    TRIBUTARY_STATE_TABLE: stateTable,
    ...(aside && { [CAPTURE_DEAD_LETTER_VARIABLE]: aside }),
  };
  return { stream, stateTable, deadLetterQueues: new Map(queues), captureEnvironment };
}

/** Makes a table whose hash key, and range key if named, are strings; one that is there stays as it is. */
export async function createTable(
  dynamodb: DynamoDBClient,
  name: string,
  key: readonly [hash: string, range?: string],
): Promise<void> {
  const columns = key.filter((column) => column !== undefined);
  const command = new CreateTableCommand({
    TableName: name,
    BillingMode: "PAY_PER_REQUEST",
    AttributeDefinitions: columns.map((column) => ({ AttributeName: column, AttributeType: "S" })),
    KeySchema: columns.map((column, i) => ({ AttributeName: column, KeyType: i === 0 ? "HASH" : "RANGE" })),
  });
  await dynamodb.send(command).catch(unlessThere);
  await waitUntilTableExists({ client: dynamodb, ...WAIT }, { TableName: name });
}

/** Makes a standard queue; gives its URL. */
export async function createQueue(sqs: SQSClient, name: string): Promise<string> {
  const { QueueUrl } = await sqs.send(
    new CreateQueueCommand({ QueueName: name, Attributes: { MaximumMessageSize: LARGEST_MESSAGE } }),
  );
  if (QueueUrl === undefined) throw new Error(`the queue ${name} was made without a URL`);
  return QueueUrl;
}

async function createStream(
  kinesis: KinesisClient,
  name: string,
  { shards = ON_DEMAND_SHARDS, retentionHours }: Pipeline["stream"],
): Promise<void> {
  const command = new CreateStreamCommand({ StreamName: name, ShardCount: shards });
  const isNew = await kinesis.send(command).then(() => true, unlessThere);
  await waitUntilStreamExists({ client: kinesis, ...WAIT }, { StreamName: name });
  const hours = Math.min(retentionHours, EMULATED_HOURS);
  if (!isNew || hours <= FIRST_HOURS) return;
  await kinesis.send(
    new IncreaseStreamRetentionPeriodCommand({ StreamName: name, RetentionPeriodHours: hours }),
  );
}

/** Ignores that an earlier start has made it. */
function unlessThere(error: unknown): undefined {
  if ((error as Error).name !== "ResourceInUseException") throw error;
}
