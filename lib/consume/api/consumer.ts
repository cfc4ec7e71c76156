import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { SQSClient } from "@aws-sdk/client-sqs";
import type { KinesisStreamBatchResponse, KinesisStreamEvent } from "aws-lambda";
import { dynamodbClient, sqsClient } from "../../aws/clients.ts";
import { kinesisShardParents, type ShardParents } from "../../aws/shard-parents.ts";
import type { ClaimStore } from "../../change/claim-store.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { claimStoreFromEnvironment } from "../../claim-check/open-claim-store.ts";
import { topicPattern } from "../../definition/topic-pattern.ts";
import { DeadLetterQueue } from "../dead-letter/dead-letter.ts";
import { runRedrive } from "../dead-letter/redrive.ts";
import { RedriveLeases } from "../dead-letter/redrive-lease.ts";
import {
  isRedriveRequest,
  type RedriveReport,
  type RedriveRequest,
  readRedriveRequest,
} from "../dead-letter/redrive-request.ts";
import { ConsumerTable } from "../fence/consumer-table.ts";
import { Fence } from "../fence/fence.ts";
import { StartPositions } from "../fence/start-position.ts";
import { HoldTable } from "../hold/hold-table.ts";
import { ParkedPayloads } from "../hold/parked-payload.ts";
import { ParkingTable } from "../hold/parking-table.ts";
import { ClaimReader } from "../run/claim-reader.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import { metricsObserver } from "../run/consumer-metrics.ts";
import type { ChangeEvent, Row } from "../run/event.ts";
import { runInvocation } from "../run/invocation.ts";
import { MissingTable } from "../run/missing-changes.ts";
import type { ConsumerObserver } from "../run/observer.ts";
import { RunningCalls } from "../run/running-calls.ts";
import { endAfterAnswer, endIfEnding } from "../run/sandbox.ts";
import { Shards, type ShardsOptions } from "../run/shards.ts";
import type { Sweep } from "../run/sweep.ts";
import { readConfiguration } from "./configuration.ts";
import { errorFacts, type HandlerContext, jsonLogger, type WriteLine } from "./context.ts";
import { Claims } from "./once.ts";
import { ALL_OPERATIONS, type Operation } from "./operation.ts";
import { Registry, topicOrTable } from "./registry.ts";
import type { RowSchema } from "./schema.ts";

/**
 * Handles one event. It took effect when the promise is fulfilled; it is called again when it is rejected.
 *
 * @example
 * const ship: EventHandler<typeof Operation.Create, Row> = async (event, ctx) => {
 *   await queueShipment(event.after.id, { key: event.id, signal: ctx.signal });
 * };
 */
export type EventHandler<O extends Operation, R> = (
  event: ChangeEvent<O, R>,
  context: HandlerContext,
) => unknown;

/**
 * Handles several consecutive events of one partition, all or nothing. Where it throws `FailedEvents`, or returns an
 * array of indexes, only those failed.
 *
 * @example
 * const index: BatchHandler<Operation, Row> = async (events, ctx) => bulkIndex(events, ctx.signal);
 */
export type BatchHandler<O extends Operation, R> = (
  events: readonly ChangeEvent<O, R>[],
  context: HandlerContext,
) => unknown;

/**
 * Removes what a backfill did not find in the source any more; called again when it is rejected.
 *
 * @example
 * const sweepOrders: SweepHandler = ({ partition, before }) => removeOrders(partition, before);
 */
export type SweepHandler = (sweep: Sweep, context: HandlerContext) => unknown;

/**
 * How a handler for single events is called.
 *
 * @example
 * const options: OnOptions<Order> = { row: orderSchema, once: "claim" };
 */
export interface OnOptions<R> {
  /** Any Standard Schema of the row: gives `after` its type and defaults. A row it refuses is a dead letter. */
  readonly row?: RowSchema<R>;
  /** `claim`: an event whose handler succeeded is not handled again, also when the fence did not move on. */
  readonly once?: "claim";
}

/**
 * How a handler for several events is called.
 *
 * @example
 * const options: OnBatchOptions<typeof Operation.Create, Row> = { operations: Operation.Create, maxEvents: 200 };
 */
export interface OnBatchOptions<O extends Operation, R> {
  /** Default: all. */
  readonly operations?: O | readonly O[];
  /** Events in a call at most; default 500. */
  readonly maxEvents?: number;
  readonly row?: RowSchema<R>;
}

/**
 * What the handler stands on; all of it comes from the environment unless given (tests, local host).
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
  /** Where log lines go; default standard output. */
  readonly write?: WriteLine;
  /** Called for each change and each sweep that takes effect in an invocation, before the checkpoint moves past it. Must not throw. */
  readonly onEffect?: (effect: ChangeEvent | Sweep) => void;
}

/**
 * A Lambda handler for a Kinesis event source mapping with `ReportBatchItemFailures`.
 * https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
 *
 * @example
 * const { batchItemFailures } = await handler({ Records }, { getRemainingTimeInMillis: () => 60_000 });
 */
export type KinesisHandler = (
  event: KinesisStreamEvent,
  context: { getRemainingTimeInMillis(): number },
) => Promise<KinesisStreamBatchResponse>;

/**
 * The same function, invoked by hand, by `tributary redrive` or on a schedule: brings parked changes to effect.
 *
 * @example
 * const report = await handler({ tributary: "redrive", dryRun: true }, { getRemainingTimeInMillis: () => 60_000 });
 */
export type RedriveHandler = (
  event: RedriveRequest,
  context: { getRemainingTimeInMillis(): number },
) => Promise<RedriveReport>;

const DEFAULT_MAX_EVENTS = 500;
/** Registered, so that two copies of the library on one machine know each other's handlers. */
const ORIGIN = Symbol.for("tributary.handler-origin");

/** What a handler was made from: the testing kit makes it anew on parts in memory. */
export interface HandlerOrigin {
  readonly consumer: string;
  readonly parts: ConsumerParts;
  /** Makes the same handler on other parts. */
  remake(parts: ConsumerParts): KinesisHandler & RedriveHandler;
}

/** Returns what a handler was made from, or undefined if `consumer(…).handler()` did not make it. */
export function originOf(handler: KinesisHandler): HandlerOrigin | undefined {
  return (handler as { readonly [ORIGIN]?: HandlerOrigin })[ORIGIN];
}

/**
 * Collects handlers; made by `consumer`.
 *
 * @example
 * const withAudit = (c: Consumer) => c.on("public.*", Operation.Delete, audit);
 */
export class Consumer {
  readonly #name: string;
  readonly #registry = new Registry();

  constructor(name: string) {
    this.#name = name;
  }

  /**
   * Registers a handler for single events of a table (`public.orders`) or topic (`shop.public.orders`), `*` standing
   * for any characters. An event goes to the first handler registered that matches it, and to no other.
   *
   * @example
   * consumer("orders")
   *   .on("public.orders", Operation.Create, async (event, ctx) => { … event.after.status … })
   *   .on("public.orders", [Operation.Update], { row: orderSchema }, async (event) => { … event.after.total … })
   *   .on("public.orders", Operation.Delete, { once: "claim" }, async (event) => { … event.key.id … })
   *
   * @throws ConfigurationError when the pattern is none.
   */
  on<O extends Operation>(pattern: string, operations: O | readonly O[], handler: EventHandler<O, Row>): this;
  on<O extends Operation, R = Row>(
    pattern: string,
    operations: O | readonly O[],
    options: OnOptions<R>,
    handler: EventHandler<O, R>,
  ): this;
  on<O extends Operation, R>(
    pattern: string,
    operations: O | readonly O[],
    ...rest: [EventHandler<O, R>] | [OnOptions<R>, EventHandler<O, R>]
  ): this {
    const [options, handler] = rest.length === 1 ? [{}, rest[0]] : rest;
    this.#registry.add({
      kind: "single",
      matches: topicOrTable(pattern),
      operations: new Set(typeof operations === "string" ? [operations] : operations),
      row: options.row,
      claim: options.once === "claim",
      // The registry knows operations and schema only at run time: what it hands over is what they say.
      handle: handler as (event: unknown, context: HandlerContext) => unknown,
    });
    return this;
  }

  /**
   * Registers a handler for consecutive events of one partition together: for sinks that write in bulk.
   *
   * @example
   * consumer("search").onBatch("public.orders", { maxEvents: 200 }, async (events, ctx) => {
   *   await bulkUpsert(events.map((event) => ({ ...event.row, position: event.position })), ctx.signal);
   * })
   *
   * @throws ConfigurationError when the pattern is none, or maxEvents not from 1 to 10,000.
   */
  onBatch<O extends Operation = Operation, R = Row>(
    pattern: string,
    options: OnBatchOptions<O, R>,
    handler: BatchHandler<O, R>,
  ): this {
    const { operations = ALL_OPERATIONS, maxEvents = DEFAULT_MAX_EVENTS, row } = options;
    if (!Number.isInteger(maxEvents) || maxEvents < 1 || maxEvents > 10_000) {
      throw new ConfigurationError(`The consumer "${this.#name}"`, [
        { path: "onBatch.maxEvents", value: maxEvents, remedy: "write a whole number from 1 to 10000" },
      ]);
    }
    this.#registry.add({
      kind: "batch",
      matches: topicOrTable(pattern),
      operations: new Set<Operation>(typeof operations === "string" ? [operations] : operations),
      maxEvents,
      row,
      handle: handler as (events: readonly unknown[], context: HandlerContext) => unknown,
    });
    return this;
  }

  /**
   * Registers a handler for the sweeps of a table or topic: at the end of a backfill that read everything, a sink that
   * keeps rows removes those *of this table, in this partition* whose position is smaller than `before`, as for a truncate.
   * Without one, rows that were deleted while nobody read the log stay. A sweep that fails for good stops its partition.
   *
   * @example
   * consumer("orders")
   *   .onSweep("public.orders", async ({ partition, before }, ctx) => {
   *     await database.query("DELETE FROM orders WHERE topic_partition = $1 AND position < $2", [partition, before]);
   *   })
   *
   * @throws ConfigurationError when the pattern is none.
   */
  onSweep(pattern: string, handler: SweepHandler): this {
    this.#registry.add({ kind: "sweep", matches: topicOrTable(pattern), handle: handler });
    return this;
  }

  /**
   * Gives the Lambda handler, for Kinesis events and for redrive. The environment is read at its first call, so that a
   * file can be imported without.
   *
   * @example
   * export const handler = consumer("orders").on(…).handler();
   *
   * @throws ConfigurationError when no handler was registered.
   */
  handler(parts: ConsumerParts = {}): KinesisHandler & RedriveHandler {
    if (this.#registry.size === 0) {
      throw new ConfigurationError(`The consumer "${this.#name}"`, [
        { path: "on", value: undefined, remedy: "register at least one handler with on or onBatch" },
      ]);
    }
    let instance: ConsumerInstance | undefined;
    const handle = async (
      event: KinesisStreamEvent | RedriveRequest,
      context: Parameters<KinesisHandler>[1],
    ) => {
      endIfEnding();
      instance ??= makeInstance(this.#name, this.#registry, parts);
      const remainingMs = context.getRemainingTimeInMillis();
      try {
        return isRedriveRequest(event)
          ? await runRedrive(instance, readRedriveRequest(event, this.#name), remainingMs)
          : await runInvocation(instance, event, remainingMs);
      } finally {
        if (instance.running.has()) endAfterAnswer(parts.environment ?? process.env);
      }
    };
    const origin: HandlerOrigin = {
      consumer: this.#name,
      parts,
      remake: (other) => this.handler(other),
    };
    // One function, two kinds of event: each has its own answer.
    return Object.defineProperty(handle, ORIGIN, { value: origin }) as KinesisHandler & RedriveHandler;
  }
}

/**
 * Begins a consumer. The name is the one of the pipeline definition: the fence stands under it, so a consumer that
 * is renamed starts anew.
 *
 * @example
 * export const handler = consumer("orders")
 *   .on("public.orders", Operation.Create, async (event, ctx) => {
 *     await fetch(url, { method: "POST", body: JSON.stringify(event.after), signal: ctx.signal });
 *   })
 *   .handler();
 *
 * @throws ConfigurationError when the name is not one that a pipeline definition takes.
 */
export function consumer(name: string): Consumer {
  if (!/^[a-z][a-z0-9-]{0,39}$/.test(name)) {
    throw new ConfigurationError("The consumer", [
      { path: "name", value: name, remedy: "write the consumer's name as in the pipeline definition" },
    ]);
  }
  return new Consumer(name);
}

function makeInstance(name: string, registry: Registry, parts: ConsumerParts): ConsumerInstance {
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
    leases: new RedriveLeases(table),
    running: new RunningCalls(),
    deadLetters: deadLetterQueueUrl
      ? new DeadLetterQueue(parts.sqs ?? sqsClient(environment), deadLetterQueueUrl)
      : undefined,
    observer: parts.observer ?? metricsObserver(pipeline, write),
    onEffect: parts.onEffect,
    write,
  };
}

/** Oversize changes in use at once may take an eighth of the function's memory: a change needs about five times its size. */
function oversizeBytes(environment: Readonly<Record<string, string | undefined>>): number {
  const memoryMB = Number(environment.AWS_LAMBDA_FUNCTION_MEMORY_SIZE) || 512;
  return (memoryMB * 1024 * 1024) / 8;
}

/** Where the stream cannot be asked, a new shard begins as if the consumer were new; that is said, not passed over. */
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
