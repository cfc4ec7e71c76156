import { resolve } from "node:path";
import type { KinesisClient } from "@aws-sdk/client-kinesis";
import * as z from "zod";
import { topicFilters } from "../consume/api/topic-filters.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { topicVariables } from "../definition/topic-variables.ts";
import { embeddedMetricsRefusal } from "./aws-limits/embedded-metrics.ts";
import type { CheckpointStore } from "./event-source-mapping/checkpoint.ts";
import { type EventSourceMapping, isIdle, runEventSourceMapping } from "./event-source-mapping/mapping.ts";
import { HandlerReports } from "./handler-reports.ts";
import { type LambdaFunction, startLambdaFunction } from "./lambda/host.ts";
import type { InvocationResult } from "./lambda/invocation.ts";
import { FunctionEntryError } from "./lambda/lambda-errors.ts";
import type { RegisteredHandlers } from "./lambda/process.ts";
import { parsedLine } from "./parsed-line.ts";
import { ON_DEMAND_SHARDS, type PipelineResources } from "./resources.ts";

/** Counts of a consumer since its start. */
export interface ConsumerCounts {
  applied: number;
  retried: number;
  duplicates: number;
  deadLettered: number;
  /** Changes that wait behind a dead letter of their key. */
  parkedBehind: number;
  unhandled: number;
  gaps: number;
  /** Commit to effect in the latest invocation: the median, in milliseconds. */
  latencyMs: number | undefined;
}

/** One consumer of the pipeline, running: its function and the event source mapping that feeds it. */
export interface RunningConsumer {
  readonly name: string;
  readonly counts: Readonly<ConsumerCounts>;
  /** Handlers that its function reported; undefined where they stand behind a wrapper. */
  readonly registered: RegisteredHandlers | undefined;
  /**
   * Runs another file from the next invocation on; the one under way ends as it began.
   * @throws FunctionEntryError where it cannot be loaded: the one before stays.
   */
  reload(entry: string): Promise<void>;
  /** Invokes the function beside the mapping, as `tributary redrive` does. */
  invoke(event: unknown): Promise<InvocationResult>;
  /** Returns true if everything in the stream was read and is done. */
  isIdle(): boolean;
  /** Finishes the invocations under way (10 s at most), then ends the processes. */
  stop(): Promise<void>;
}

/** Settings of `startConsumer` beside the definition. */
export interface ConsumerHostOptions {
  readonly definition: Pipeline;
  /** Entries are relative to it. */
  readonly projectDirectory: string;
  readonly resources: PipelineResources;
  readonly kinesis: KinesisClient;
  /** Variables of the handler's process beside the consumer's own: endpoints, and what the user's handlers read. */
  readonly surroundings: Readonly<Record<string, string>>;
  /** The code that is run; left out: the consumer's entry. */
  readonly file?: string | undefined;
  /** Left out: the stream is read from its beginning. */
  readonly checkpoints?: CheckpointStore | undefined;
  readonly sourceMaps?: boolean;
  /** True where dead letters outlive the run, and `tributary redrive` finds it. Default false. */
  readonly canRedrive?: boolean;
  /** Gets a line, or several as one text: what a handler threw, and where. */
  readonly onLog: (text: string) => void;
  /** The mapping has ended by itself. */
  readonly onFailure: (error: Error) => void;
}

const DRAIN_MS = 10_000;

const COUNTED = [
  "applied",
  "retried",
  "duplicates",
  "deadLettered",
  "parkedBehind",
  "unhandled",
  "gaps",
] as const;

const report = z.object({
  tributary: z.literal("consumer"),
  applied: z.number(),
  duplicates: z.number(),
  unhandled: z.number(),
  /** Not of earlier versions. */
  unmatched: z.array(z.string()).default([]),
  retried: z.number(),
  deadLettered: z.number(),
  parkedBehind: z.number(),
  gaps: z.number(),
  commitToEffectMs: z.object({ p50: z.number() }).nullable(),
  paused: z.string().optional(),
});

/**
 * Starts a consumer as its definition says: the same settings that the CDK app gives to Lambda.
 * @throws FunctionEntryError when its file cannot be loaded, or is another consumer.
 */
export async function startConsumer(
  consumer: ConsumerDefinition,
  options: ConsumerHostOptions,
): Promise<RunningConsumer> {
  const { definition, resources } = options;
  const counts: ConsumerCounts = {
    applied: 0,
    retried: 0,
    duplicates: 0,
    deadLettered: 0,
    parkedBehind: 0,
    unhandled: 0,
    gaps: 0,
    latencyMs: undefined,
  };
  const { name } = consumer;
  const tell = (text: string) => options.onLog(`${name}: ${text}`);
  const reports = new HandlerReports({
    consumer: name,
    canRedrive: options.canRedrive === true,
    timeoutSeconds: consumer.timeoutSeconds,
    print: options.onLog,
  });
  const unmatched = new Set<string>();
  /** Who has paused it, as its latest invocation found. */
  let paused: string | undefined;
  const handlerFunction = await startLambdaFunction({
    entry: options.file ?? resolve(options.projectDirectory, consumer.entry),
    name: `${definition.name}-${consumer.name}`,
    timeoutMs: consumer.timeoutSeconds * 1000,
    memoryMB: consumer.memoryMB,
    concurrency: consumer.parallelization * (definition.stream.shards ?? ON_DEMAND_SHARDS),
    surroundings: options.surroundings,
    environment: consumerEnvironment(consumer, definition, resources),
    sourceMaps: options.sourceMaps === true,
    onLog: (line) => {
      const refusal = embeddedMetricsRefusal(line);
      if (refusal) tell(`CloudWatch takes no metrics from a line: ${refusal.message}`);
      const report = readReport(line);
      if (report) {
        add(counts, report);
        if (report.paused !== undefined && paused === undefined)
          tell(`paused ${report.paused}, its changes wait: tributary consumer resume --consumer ${name}`);
        if (report.paused === undefined && paused !== undefined) tell("goes on");
        paused = report.paused;
        for (const what of report.unmatched) {
          if (unmatched.has(what)) continue;
          unmatched.add(what);
          tell(`${what}: no handler matches; such changes are passed, and counted as unhandled`);
        }
      } else if (!reports.take(line)) tell(line);
    },
  });
  try {
    checkName(consumer, handlerFunction.registered);
    const mapping = await startMapping(consumer, options, handlerFunction);
    mapping.events.on("failed", options.onFailure);
    mapping.events.on("invoked", ({ error }) => {
      // A paused consumer reports its whole batch as not done, and that has been said.
      if (error && paused === undefined) tell(`invocation failed: ${error}`);
    });
    return {
      name,
      counts,
      get registered() {
        return handlerFunction.registered;
      },
      reload: (entry) => handlerFunction.reload(entry, (registered) => checkName(consumer, registered)),
      invoke: (event) => handlerFunction.invoke(event),
      isIdle: () => isIdle(mapping),
      async stop() {
        await mapping.stop(DRAIN_MS);
        await handlerFunction.stop();
        reports.close();
      },
    };
  } catch (error) {
    await handlerFunction.stop();
    throw error;
  }
}

/**
 * Sees that a handler is the consumer that the definition says. Start positions, checkpoints and parked changes stand under the name: under
 * another one the consumer would have none, and get nowhere, or go on with what an earlier name left.
 * @throws FunctionEntryError
 */
export function checkName(
  { name, entry }: ConsumerDefinition,
  registered: RegisteredHandlers | undefined,
): void {
  if (registered === undefined || registered.consumer === name) return;
  throw new FunctionEntryError({
    message: `The handler file ${entry} is the consumer "${registered.consumer}", the definition calls it "${name}"`,
    remedy: `Give both one name: consumer("${name}") in the file, or "${registered.consumer}" in the definition. Where it ran before, keep the name that it had: what the consumer has done stands under it.`,
  });
}

function startMapping(
  consumer: ConsumerDefinition,
  { definition, resources, kinesis, checkpoints }: ConsumerHostOptions,
  functionHost: LambdaFunction,
): Promise<EventSourceMapping> {
  const filters = topicFilters(consumer.topics, definition.stream.packing);
  // Rule 13: only the library gives up, event by event.
  return runEventSourceMapping({
    kinesis,
    functionHost,
    streamName: resources.stream,
    batchSize: consumer.batchSize,
    maximumBatchingWindowSeconds: consumer.batchWindowSeconds,
    parallelizationFactor: consumer.parallelization,
    ...(filters ? { filters } : {}),
    ...(checkpoints ? { checkpoints } : {}),
  });
}

/** Returns the variables that a consumer's function gets: those that the CDK app gives it. */
export function consumerEnvironment(
  consumer: ConsumerDefinition,
  definition: Pipeline,
  resources: Pick<PipelineResources, "stateTable" | "deadLetterQueues">,
): Record<string, string> {
  return {
    TRIBUTARY_PIPELINE_NAME: definition.name,
    TRIBUTARY_STATE_TABLE: resources.stateTable,
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: resources.deadLetterQueues.get(consumer.name) ?? "",
    TRIBUTARY_ATTEMPTS: String(consumer.attempts),
    TRIBUTARY_POISON: consumer.poison,
    // Here who wrote the handler looks at its log, and nobody keeps it.
    TRIBUTARY_LOG_ERRORS: "true",
    ...topicVariables(consumer.topics),
    TRIBUTARY_RETENTION_HOURS: String(definition.stream.retentionHours),
  };
}

/** Reads a line that is an invocation's report. */
function readReport(line: string): z.infer<typeof report> | undefined {
  if (!line.startsWith('{"tributary":"consumer"')) return undefined;
  return report.safeParse(parsedLine(line)).data;
}

function add(counts: ConsumerCounts, of: z.infer<typeof report>): void {
  for (const name of COUNTED) counts[name] += of[name];
  counts.latencyMs = of.commitToEffectMs?.p50 ?? counts.latencyMs;
}
