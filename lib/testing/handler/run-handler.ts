import type { KinesisStreamBatchResponse, KinesisStreamEvent } from "aws-lambda";
import { START_OF_HISTORY } from "../../change/position.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import {
  type HandlerOrigin,
  type KinesisHandler,
  originOf,
  type RedriveHandler,
} from "../../consume/api/consumer.ts";
import type { DeadLetter } from "../../consume/dead-letter/dead-letter.ts";
import type { RedriveReport, RedriveRequest } from "../../consume/dead-letter/redrive-request.ts";
import { registerConsumers } from "../../consume/fence/start-position.ts";
import type { ChangeEvent } from "../../consume/run/event.ts";
import type { InvocationReport } from "../../consume/run/observer.ts";
import type { Sweep } from "../../consume/run/sweep.ts";
import { memoryQueue } from "./memory-queue.ts";
import { MemoryTable } from "./memory-table.ts";

const TABLE = "state";
const PIPELINE = "test";
const QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/000000000000/dead-letters";

/** Settings of a handler that runs in memory. */
export interface RunOptions {
  /** Treatment of a change that failed for good; default `park`, as in a pipeline. */
  readonly poison?: "park" | "skip" | "stop";
  /** Calls for one change; default 1, so that a failure costs no pauses. A pipeline's default is 3. */
  readonly attempts?: number;
  /** Time of each invocation, in milliseconds; default 10,000. */
  readonly timeoutMs?: number;
  /** More variables of the library, such as TRIBUTARY_CLAIM_BUCKET. The handler's own code reads `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** Result of one invocation. */
export interface HandlerRun {
  /** Changes that took effect, in the order in which they did. */
  readonly applied: readonly ChangeEvent[];
  readonly sweeps: readonly Sweep[];
  /** Answer to Lambda: empty if nothing has to come again. */
  readonly batchItemFailures: KinesisStreamBatchResponse["batchItemFailures"];
  /** Messages to the dead-letter queue, with the handler's error. */
  readonly deadLetters: readonly DeadLetter[];
  /** The invocation's figures: duplicates, unhandled, parked and so on. */
  readonly report: InvocationReport;
  /** Log lines, the library's and those of `ctx.logger`. */
  readonly logs: readonly Readonly<Record<string, unknown>>[];
}

/**
 * Runs one invocation of a handler without any server: its fence, parked changes and dead letters are kept in memory, and
 * nothing is left behind.
 *
 * @example
 * const { applied, deadLetters } = await runHandler(handler, kinesisEvent([placed, paid]));
 *
 * @throws ConfigurationError if `consumer(…).handler()` did not make the handler.
 */
export function runHandler(
  handler: KinesisHandler,
  event: KinesisStreamEvent,
  options: RunOptions = {},
): Promise<HandlerRun> {
  return new HandlerInMemory(handler, options).run(event);
}

/**
 * A handler whose invocations share one memory, as those of a deployed function share its state table: for tests of
 * duplicates, parking and redrive.
 *
 * @example
 * const orders = new HandlerInMemory(handler);
 * await orders.run(kinesisEvent([placed]));
 * const { report } = await orders.run(kinesisEvent([placed]));
 * expect(report.duplicates).toBe(1);
 */
export class HandlerInMemory {
  readonly #origin: HandlerOrigin;
  readonly #handler: KinesisHandler & RedriveHandler;
  readonly #table = new MemoryTable();
  readonly #timeoutMs: number;
  readonly #registered: Promise<void>;
  #letters: DeadLetter[] = [];
  #logs: Record<string, unknown>[] = [];
  #effects: (ChangeEvent | Sweep)[] = [];
  #report: InvocationReport | undefined;

  /** @throws ConfigurationError if `consumer(…).handler()` did not make the handler. */
  constructor(
    handler: KinesisHandler,
    { poison = "park", attempts = 1, timeoutMs = 10_000, environment = {} }: RunOptions = {},
  ) {
    const origin = originOf(handler);
    if (!origin) {
      throw new ConfigurationError("The handler", [
        { path: "handler", value: undefined, remedy: "give what consumer(…).handler() returned, unwrapped" },
      ]);
    }
    this.#origin = origin;
    this.#timeoutMs = timeoutMs;
    const dynamodb = this.#table.client();
    const consumers = [{ name: origin.consumer, topics: ["*"] }];
    this.#registered = registerConsumers(dynamodb, TABLE, PIPELINE, consumers, START_OF_HISTORY);
    this.#registered.catch(() => {});
    this.#handler = origin.remake({
      environment: {
        TRIBUTARY_STATE_TABLE: TABLE,
        TRIBUTARY_PIPELINE_NAME: PIPELINE,
        TRIBUTARY_POISON: poison,
        TRIBUTARY_ATTEMPTS: String(attempts),
        TRIBUTARY_DEAD_LETTER_QUEUE_URL: QUEUE_URL,
        ...environment,
      },
      dynamodb,
      sqs: memoryQueue((body) => this.#letters.push(JSON.parse(body) as DeadLetter)),
      observer: {
        invocation: (report) => {
          this.#report = report;
          return origin.parts.observer?.invocation(report);
        },
        redrive: (report) => origin.parts.observer?.redrive?.(report),
      },
      write: (line) => void this.#logs.push(JSON.parse(line) as Record<string, unknown>),
      onEffect: (effect) => void this.#effects.push(effect),
    });
  }

  /** Runs one invocation. */
  async run(event: KinesisStreamEvent): Promise<HandlerRun> {
    await this.#registered;
    this.#report = undefined;
    this.#letters = [];
    this.#logs = [];
    this.#effects = [];
    const { batchItemFailures } = await this.#handler(event, this.#context());
    const report = this.#report as InvocationReport | undefined;
    if (!report) throw new Error(`${this.#origin.consumer} ended without a report`);
    return {
      applied: this.#effects.filter((effect): effect is ChangeEvent => "op" in effect),
      sweeps: this.#effects.filter((effect): effect is Sweep => !("op" in effect)),
      batchItemFailures,
      deadLetters: this.#letters,
      report,
      logs: this.#logs,
    };
  }

  /** Brings parked changes to effect, as `tributary redrive` does. */
  async redrive(request: Omit<RedriveRequest, "tributary"> = {}): Promise<RedriveReport> {
    await this.#registered;
    return this.#handler({ tributary: "redrive", ...request }, this.#context());
  }

  #context(): { getRemainingTimeInMillis(): number } {
    const end = performance.now() + this.#timeoutMs;
    return { getRemainingTimeInMillis: () => Math.max(0, end - performance.now()) };
  }
}
