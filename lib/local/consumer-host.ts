import type { KinesisClient } from "@aws-sdk/client-kinesis";
import * as z from "zod";
import { topicFilters } from "../consume/api/topic-filters.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { topicVariables } from "../definition/topic-variables.ts";
import { embeddedMetricsRefusal } from "./aws-limits/embedded-metrics.ts";
import { type EventSourceMapping, isIdle, runEventSourceMapping } from "./event-source-mapping/mapping.ts";
import { type LambdaFunction, startLambdaFunction } from "./lambda/host.ts";
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
  /** Whether everything in the stream was read and is done. */
  isIdle(): boolean;
  /** Finishes the invocations under way (10 s at most), then ends the processes. */
  stop(): Promise<void>;
}

/** Settings of `startConsumer` beside the definition. */
export interface ConsumerHostOptions {
  readonly definition: Pipeline;
  readonly resources: PipelineResources;
  readonly kinesis: KinesisClient;
  /** Variables of the handler's process beside the consumer's own: endpoints, and what the user's handlers read. */
  readonly surroundings: Readonly<Record<string, string>>;
  readonly onLog: (line: string) => void;
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
  retried: z.number(),
  deadLettered: z.number(),
  parkedBehind: z.number(),
  gaps: z.number(),
  commitToEffectMs: z.object({ p50: z.number() }).nullable(),
});

/**
 * Starts a consumer as its definition says: the same settings that the CDK app gives to Lambda.
 * @throws FunctionEntryError when its file cannot be loaded.
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
  const handlerFunction = await startLambdaFunction({
    entry: consumer.entry,
    name: `${definition.name}-${consumer.name}`,
    timeoutMs: consumer.timeoutSeconds * 1000,
    memoryMB: consumer.memoryMB,
    concurrency: consumer.parallelization * (definition.stream.shards ?? ON_DEMAND_SHARDS),
    surroundings: options.surroundings,
    environment: consumerEnvironment(consumer, definition, resources),
    onLog: (line) => {
      const refusal = embeddedMetricsRefusal(line);
      if (refusal)
        options.onLog(`${consumer.name}: CloudWatch takes no metrics from a line: ${refusal.message}`);
      if (!count(counts, line)) options.onLog(`${consumer.name}: ${line}`);
    },
  });
  try {
    const mapping = await startMapping(consumer, options, handlerFunction);
    mapping.events.on("failed", options.onFailure);
    mapping.events.on("invoked", ({ error }) => {
      if (error) options.onLog(`${consumer.name}: invocation failed: ${error}`);
    });
    return {
      name: consumer.name,
      counts,
      isIdle: () => isIdle(mapping),
      async stop() {
        await mapping.stop(DRAIN_MS);
        await handlerFunction.stop();
      },
    };
  } catch (error) {
    await handlerFunction.stop();
    throw error;
  }
}

function startMapping(
  consumer: ConsumerDefinition,
  { definition, resources, kinesis }: ConsumerHostOptions,
  functionHost: LambdaFunction,
): Promise<EventSourceMapping> {
  const filters = topicFilters(consumer.topics, definition.stream.packing);
  return runEventSourceMapping({
    kinesis,
    functionHost,
    streamName: resources.stream,
    // Rule 13: from the beginning always, and only the library gives up, event by event.
    startingPosition: "TRIM_HORIZON",
    batchSize: consumer.batchSize,
    maximumBatchingWindowSeconds: consumer.batchWindowSeconds,
    parallelizationFactor: consumer.parallelization,
    reportBatchItemFailures: true,
    ...(filters ? { filters } : {}),
  });
}

function consumerEnvironment(
  consumer: ConsumerDefinition,
  definition: Pipeline,
  resources: PipelineResources,
): Record<string, string> {
  return {
    TRIBUTARY_PIPELINE_NAME: definition.name,
    TRIBUTARY_STATE_TABLE: resources.stateTable,
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: resources.deadLetterQueues.get(consumer.name) ?? "",
    TRIBUTARY_ATTEMPTS: String(consumer.attempts),
    TRIBUTARY_POISON: consumer.poison,
    ...topicVariables(consumer.topics),
    TRIBUTARY_RETENTION_HOURS: String(definition.stream.retentionHours),
  };
}

/** Adds an invocation's report, if the line is one. */
function count(counts: ConsumerCounts, line: string): boolean {
  if (!line.startsWith('{"tributary":"consumer"')) return false;
  const parsed = report.safeParse(JSON.parse(line));
  if (!parsed.success) return false;
  for (const name of COUNTED) counts[name] += parsed.data[name];
  counts.latencyMs = parsed.data.commitToEffectMs?.p50 ?? counts.latencyMs;
  return true;
}
