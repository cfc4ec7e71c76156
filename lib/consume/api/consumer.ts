import type { KinesisStreamBatchResponse, KinesisStreamEvent } from "aws-lambda";
import { runRedrive } from "#redrive";
import { ConfigurationError, type ConfigurationProblem } from "../../change/tributary-error.ts";
import type { RedriveReport, RedriveRequest } from "../dead-letter/redrive-request.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import type { ChangeEvent, Row } from "../run/event.ts";
import { runInvocation } from "../run/invocation.ts";
import { endAfterAnswer, endIfEnding } from "../run/sandbox.ts";
import type { Sweep } from "../run/sweep.ts";
import { type ConsumerParts, makeInstance } from "./consumer-parts.ts";
import type { HandlerContext } from "./context.ts";
import { type BatchMiddleware, type Middleware, withMiddleware } from "./middleware.ts";
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
 * Options of a handler for single events.
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
 * Options of a handler for several events.
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

/** The origin of a handler: the testing kit makes it anew on parts in memory. */
export interface HandlerOrigin {
  readonly consumer: string;
  /** Patterns of all its handlers: the local host holds them against the captured tables. */
  readonly patterns: readonly string[];
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
  readonly #middleware: Middleware[] = [];
  readonly #batchMiddleware: BatchMiddleware[] = [];

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
      pattern,
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
      pattern,
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
    this.#registry.add({ kind: "sweep", pattern, matches: topicOrTable(pattern), handle: handler });
    return this;
  }

  /**
   * Puts a middleware around every handler that this consumer has by `on`, whether registered before or after. The first
   * is the outermost.
   *
   * @example
   * consumer("orders")
   *   .use(async (event, ctx, next) => {
   *     await tenants.run(event.row?.tenant_id, next);
   *   })
   */
  use(middleware: Middleware): this {
    this.#middleware.push(middleware);
    return this;
  }

  /**
   * Puts a middleware around every handler that this consumer has by `onBatch`, a sink's too; see `use`. It gets the
   * events of the call.
   *
   * @example
   * sinkConsumer("search", search)
   *   .useBatch(async (events, ctx, next) => {
   *     await next();
   *     ctx.logger.info("written", { events: events.length });
   *   })
   */
  useBatch(middleware: BatchMiddleware): this {
    this.#batchMiddleware.push(middleware);
    return this;
  }

  /**
   * Gives the Lambda handler, for Kinesis events and for redrive. The environment is read at its first call, so that a
   * file can be imported without.
   *
   * @example
   * export const handler = consumer("orders").on(…).handler();
   *
   * @throws ConfigurationError when no handler was registered, or handlers of one kind are without the middleware of the other.
   */
  handler(parts: ConsumerParts = {}): KinesisHandler & RedriveHandler {
    if (this.#registry.size === 0) {
      throw new ConfigurationError(`The consumer "${this.#name}"`, [
        { path: "on", value: undefined, remedy: "register at least one handler with on or onBatch" },
      ]);
    }
    const problems = this.#uncovered();
    if (problems.length > 0) throw new ConfigurationError(`The consumer "${this.#name}"`, problems);
    let instance: ConsumerInstance | undefined;
    const handle = async (
      event: KinesisStreamEvent | RedriveRequest,
      context: Parameters<KinesisHandler>[1],
    ) => {
      endIfEnding();
      instance ??= makeInstance(this.#name, this.#wrapped(), parts);
      const remainingMs = context.getRemainingTimeInMillis();
      try {
        return isRedriveRequest(event)
          ? await runRedrive(instance, event, remainingMs)
          : await runInvocation(instance, event, remainingMs);
      } finally {
        if (instance.running.has()) endAfterAnswer(parts.environment ?? process.env);
      }
    };
    const origin: HandlerOrigin = {
      consumer: this.#name,
      patterns: this.#registry.patterns,
      parts,
      remake: (other) => this.handler(other),
    };
    // One function, two kinds of event: each has its own answer.
    return Object.defineProperty(handle, ORIGIN, { value: origin }) as KinesisHandler & RedriveHandler;
  }

  /** The handlers with the middleware around them; without any, nothing stands between. */
  #wrapped(): Registry {
    const [single, batch] = [this.#middleware, this.#batchMiddleware];
    if (single.length + batch.length === 0) return this.#registry;
    return this.#registry.map((registration) => withMiddleware(registration, { single, batch }));
  }

  /** A middleware that filters or checks would else be left out in silence. */
  #uncovered(): ConfigurationProblem[] {
    const [single, batch] = [this.#middleware.length > 0, this.#batchMiddleware.length > 0];
    const lacks = (has: string, kind: string, path: string, events: string) => {
      const remedy = `the middleware of ${has} is not around the handlers of ${kind}: add ${path}((${events}, ctx, next) => …)`;
      return [{ path, value: undefined, remedy }];
    };
    if (single && !batch && this.#registry.has("batch"))
      return lacks("use", "onBatch, or of a sink", "useBatch", "events");
    if (batch && !single && this.#registry.has("single")) return lacks("useBatch", "on", "use", "event");
    return [];
  }
}

function isRedriveRequest(event: object): event is RedriveRequest {
  return (event as { tributary?: unknown }).tributary === "redrive";
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
