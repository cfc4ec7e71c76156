import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { SQSClient } from "@aws-sdk/client-sqs";
import { dynamodbClient, sqsClient } from "../../aws/clients.ts";
import { kinesisShardParents, type ShardParents } from "../../aws/shard-parents.ts";
import type { ClaimStore } from "../../change/claim-store.ts";
import { claimStoreFromEnvironment } from "../../claim-check/open-claim-store.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";
import { DeadLetterQueue } from "../dead-letter/dead-letter.ts";
import { ConsumerTable } from "../fence/consumer-table.ts";
import { Fence } from "../fence/fence.ts";
import { PartitionItems } from "../fence/partition-items.ts";
import { StartPositions } from "../fence/start-position.ts";
import { HoldTable } from "../hold/hold-table.ts";
import { ParkedPayloads } from "../hold/parked-payload.ts";
import { ParkingTable } from "../hold/parking-table.ts";
import { ClaimReader } from "../run/claim-reader.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import { metricsObserver } from "../run/consumer-metrics.ts";
import type { ChangeEvent } from "../run/event.ts";
import { MissingTable } from "../run/missing-changes.ts";
import type { ConsumerObserver } from "../run/observer.ts";
import { PauseFlag } from "../run/pause-flag.ts";
import { RunningCalls } from "../run/running-calls.ts";
import { Shards, type ShardsOptions } from "../run/shards.ts";
import type { Sweep } from "../run/sweep.ts";
import { readConfiguration } from "./configuration.ts";
import { errorFacts, jsonLogger, type WriteLine } from "./context.ts";
import { Claims } from "./once.ts";
import type { Registry } from "./registry.ts";

/**
 * The parts that the handler stands on; all of them comes from the environment unless given (tests, local host).
 *
 * @example
 * consumer("orders").on(…).handler({ observer: { invocation: (report) => metrics.add(report) } });
 */
export interface ConsumerParts {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly dynamodb?: DynamoDBClient;
  readonly sqs?: SQSClient;
  /** Asked when a shard of the stream is met for the first time. Default: Kinesis. */
  readonly shardParents?: ShardParents;
  readonly observer?: ConsumerObserver;
  /** Writes a line of the log; default: to standard output. */
  readonly write?: WriteLine;
  /** Called for each change and each sweep that takes effect in an invocation, before the checkpoint moves past it. Must not throw. */
  readonly onEffect?: (effect: ChangeEvent | Sweep) => void;
}

/** Makes what the handlers of a consumer run on, from its parts and its environment. @throws ConfigurationError */
export function makeInstance(name: string, registry: Registry, parts: ConsumerParts): ConsumerInstance {
  const environment = parts.environment ?? process.env;
  const configuration = readConfiguration(environment);
  const { stateTable, pipeline, deadLetterQueueUrl, topics } = configuration;
  const dynamodb = parts.dynamodb ?? dynamodbClient(environment);
  const table = new ConsumerTable({ dynamodb, table: stateTable, pipeline, consumer: name });
  const write = parts.write ?? ((line) => void process.stdout.write(`${line}\n`));
  const patterns = topics?.map(topicPattern);
  let claims: Promise<ClaimStore | undefined> | undefined;
  const openClaims = () => {
    claims ??= claimStoreFromEnvironment(environment);
    return claims;
  };
  return {
    consumer: name,
    consumerTable: table,
    registry,
    configuration,
    isOwn: (topic) => !patterns || patterns.some((matches) => matches(topic)),
    fence: new Fence(table),
    startPositions: new StartPositions(table),
    claims: new Claims(table),
    missing: new MissingTable(table),
    shards: new Shards({
      ...{ table, retentionMs: configuration.retentionMs },
      parentsOf: parentsOf(name, parts.shardParents ?? kinesisShardParents(environment), write),
    }),
    oversize: new ClaimReader(openClaims, oversizeBytes(environment)),
    parking: new ParkingTable(table),
    payloads: new ParkedPayloads(pipeline, name, openClaims),
    holds: new HoldTable(table),
    items: new PartitionItems(table),
    pause: new PauseFlag(table),
    running: new RunningCalls(),
    deadLetters: deadLetterQueueUrl
      ? new DeadLetterQueue(parts.sqs ?? sqsClient(environment), deadLetterQueueUrl)
      : undefined,
    observer: parts.observer ?? metricsObserver(configuration, write),
    onEffect: parts.onEffect,
    write,
  };
}

/** Oversize changes in use at once may take an eighth of the function's memory: a change needs about five times its size. */
function oversizeBytes(environment: Readonly<Record<string, string | undefined>>): number {
  const memoryMB = Number(environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE) || 512;
  return (memoryMB * 1024 * 1024) / 8;
}

/** Asks for a shard's parents. If the stream cannot be asked, a new shard begins as if the consumer were new; that is said, not passed over. */
function parentsOf(consumer: string, ask: ShardParents, write: WriteLine): ShardsOptions["parentsOf"] {
  return async (shardId, streamArn, signal) => {
    try {
      return await ask(streamArn, shardId, signal);
    } catch (error) {
      jsonLogger(write, { consumer, shardId, ...errorFacts(error) }).warn(
        "the stream's shards cannot be listed: records that expired before this shard was made are not detected",
      );
      return [];
    }
  };
}
