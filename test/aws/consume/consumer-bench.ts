import {
  type AttributeValue,
  type DynamoDBClient,
  GetItemCommand,
  ScanCommand,
} from "@aws-sdk/client-dynamodb";
import { DeleteMessageCommand, ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import type { KinesisStreamBatchResponse, KinesisStreamRecord } from "aws-lambda";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import {
  type Consumer,
  consumer,
  type KinesisHandler,
  type RedriveHandler,
} from "../../../lib/consume/api/consumer.ts";
import type { RedriveReport, RedriveRequest } from "../../../lib/consume/dead-letter/redrive-request.ts";
import { readPartition, type StoredPartition } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { eventually } from "../../eventually.ts";
import { TOPIC } from "../../unit/consume/records.ts";
import type { EmulatedAws } from "../emulated.ts";

/** A consumer on emulated AWS, invoked by hand. */
export interface ConsumerBench {
  readonly environment: Record<string, string | undefined>;
  readonly reports: InvocationReport[];
  readonly lines: string[];
  readonly name: string;
  readonly table: string;
  /** Makes a handler: each is like a fresh Lambda instance. */
  instance(
    build: (consumer: Consumer) => Consumer,
    environment?: Record<string, string>,
    dynamodb?: DynamoDBClient,
  ): KinesisHandler & RedriveHandler;
  stored(partition?: number): Promise<StoredPartition>;
  /** All that the state table holds. */
  items(): Promise<Record<string, AttributeValue>[]>;
  /** What is stored of parked changes: lists of keys, letters and changes. */
  parkedItems(): Promise<Record<string, AttributeValue>[]>;
  /** The claims there are. */
  claims(): Promise<Record<string, AttributeValue>[]>;
  settled(condition: () => Promise<boolean>): Promise<unknown>;
  /** Everything in the dead-letter queue, deleted. */
  letters(): Promise<Record<string, unknown>[]>;
}

let benches = 0;

export async function consumerBench(
  aws: EmulatedAws,
  options: { startPosition?: string | null; queue?: Record<string, string> } = {},
): Promise<ConsumerBench> {
  const table = await aws.freshTable();
  const queue = await aws.freshQueue(options.queue);
  const name = `consumer-${++benches}`;
  const { startPosition = START_OF_HISTORY } = options;
  if (startPosition !== null) {
    await registerConsumers(aws.dynamodb, table, "shop", [{ name, topics: ["shop.*"] }], startPosition);
  }
  const environment = {
    ...aws.environment,
    TRIBUTARY_STATE_TABLE: table,
    TRIBUTARY_PIPELINE_NAME: "shop",
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: queue,
  };
  const reports: InvocationReport[] = [];
  const lines: string[] = [];
  return {
    environment,
    reports,
    lines,
    name,
    table,
    instance(build, extra = {}, dynamodb = aws.dynamodb) {
      return build(consumer(name)).handler({
        environment: { ...environment, ...extra },
        dynamodb,
        sqs: aws.sqs,
        observer: { invocation: (report) => reports.push(report) },
        write: (line) => lines.push(line),
      });
    },
    async stored(partition = 0) {
      const { pk, sk } = fenceKey({ pipeline: "shop", consumer: name }, TOPIC, Math.floor(partition / 32));
      const { Item } = await aws.dynamodb.send(
        new GetItemCommand({ TableName: table, Key: { pk: { S: pk }, sk: { S: sk } }, ConsistentRead: true }),
      );
      return readPartition(Item, partition);
    },
    async items() {
      const { Items = [] } = await aws.dynamodb.send(
        new ScanCommand({ TableName: table, ConsistentRead: true }),
      );
      return Items;
    },
    async parkedItems() {
      const { Items = [] } = await aws.dynamodb.send(
        new ScanCommand({ TableName: table, ConsistentRead: true }),
      );
      return Items.filter(({ pk }) => pk?.S?.endsWith("#parked"));
    },
    async claims() {
      const { Items = [] } = await aws.dynamodb.send(new ScanCommand({ TableName: table }));
      return Items.filter(({ sk }) => sk?.S === "claim");
    },
    settled: (condition) => eventually(condition, { what: "the state" }),
    async letters() {
      const letters: Record<string, unknown>[] = [];
      for (;;) {
        const { Messages = [] } = await aws.sqs.send(
          new ReceiveMessageCommand({ QueueUrl: queue, MaxNumberOfMessages: 10 }),
        );
        if (Messages.length === 0) return letters;
        for (const message of Messages) {
          letters.push(JSON.parse(message.Body as string));
          await aws.sqs.send(
            new DeleteMessageCommand({ QueueUrl: queue, ReceiptHandle: message.ReceiptHandle }),
          );
        }
      }
    },
  };
}

/** Invokes as Lambda does, with so much time. */
export function invoke(
  handler: KinesisHandler,
  records: KinesisStreamRecord[],
  timeoutMs = 60_000,
): Promise<KinesisStreamBatchResponse> {
  const end = performance.now() + timeoutMs;
  return handler({ Records: records }, { getRemainingTimeInMillis: () => end - performance.now() });
}

export const DONE: KinesisStreamBatchResponse = { batchItemFailures: [] };

export function failedAt(record: KinesisStreamRecord): KinesisStreamBatchResponse {
  return { batchItemFailures: [{ itemIdentifier: record.kinesis.sequenceNumber }] };
}

/** Asks for a redrive as `tributary redrive` does. */
export function redrive(
  handler: RedriveHandler,
  request: Omit<RedriveRequest, "tributary"> = {},
  timeoutMs = 60_000,
): Promise<RedriveReport> {
  const end = performance.now() + timeoutMs;
  return handler(
    { tributary: "redrive", ...request },
    { getRemainingTimeInMillis: () => end - performance.now() },
  );
}
