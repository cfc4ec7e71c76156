import type { LambdaClient } from "@aws-sdk/client-lambda";
import { type Environment, lambdaClient } from "../../aws/clients.ts";
import { describeStreamSummary } from "../../aws/describe-stream.ts";
import { awsFailure } from "../../aws/failure.ts";
import { topicFilters } from "../../consume/api/topic-filters.ts";
import type { ConsumerDefinition, Pipeline } from "../../definition/definition.ts";
import { OPERATE_VARIABLE } from "../../definition/remote-program.ts";
import type { ConsumerResources, PipelineResources } from "../resources.ts";
import type { DeployedChange, Unseen } from "./pipeline-plan.ts";

/** Differences between a deployment and the definition, and what could not be looked at. */
export interface DeployedDifferences {
  readonly changes: readonly DeployedChange[];
  readonly unseen: readonly Unseen[];
}

const CALL_MS = 20_000;

/**
 * Compares what a stack has of a pipeline with its definition, as far as a read tells: event source mappings and functions of its consumers,
 * and the stream. In the capture image of the stream alone: see `captureDefinition`. A call that is refused, or not answered in 20 s, is listed as not seen.
 */
export async function compareDeployed(
  { stream, consumers: definitions }: Pick<Pipeline, "stream" | "consumers">,
  { stream: streamName, consumers }: Pick<PipelineResources, "stream" | "consumers">,
  environment: Environment,
  signal: AbortSignal,
): Promise<DeployedDifferences> {
  const changes: DeployedChange[] = [];
  const unseen: Unseen[] = [];
  const look = async (what: string, compare: (call: AbortSignal) => Promise<readonly Difference[]>) => {
    try {
      const found = await compare(AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]));
      for (const [setting, deployed, wanted] of found)
        if (deployed !== wanted)
          changes.push({ what: "deployed", action: "change", name: what, setting, deployed, wanted });
    } catch (error) {
      signal.throwIfAborted();
      unseen.push({ what, why: awsFailure(error), failed: true });
    }
  };
  if (streamName !== undefined)
    await look(`stream ${streamName}`, (call) => ofStream(stream, streamName, environment, call));
  if (environment[OPERATE_VARIABLE] !== undefined) {
    const why = "the definition in the capture image leaves them out: run tributary plan without --remote";
    unseen.push({ what: "settings of consumers", why });
    return { changes, unseen };
  }
  const lambda = await lambdaClient(environment);
  for (const definition of definitions) {
    const resources = consumers[definition.name];
    if (resources === undefined) continue;
    const { name } = definition;
    await look(`event source mapping of ${name}`, (call) =>
      ofMapping(definition, stream.packing, resources, lambda, call),
    );
    await look(`function of ${name}`, (call) => ofFunction(definition, resources, lambda, call));
  }
  lambda.destroy();
  return { changes, unseen };
}

type Difference = readonly [setting: string, deployed: string, wanted: string];

async function ofStream(
  { retentionHours, mode, shards }: Pipeline["stream"],
  name: string,
  environment: Environment,
  call: AbortSignal,
): Promise<readonly Difference[]> {
  const found = await describeStreamSummary(environment, name, call);
  const deployedMode = found?.StreamModeDetails?.StreamMode === "PROVISIONED" ? "provisioned" : "on-demand";
  return [
    ["retention in hours", String(found?.RetentionPeriodHours), String(retentionHours)],
    ["mode", deployedMode, mode],
    ...(mode === "provisioned" && deployedMode === mode
      ? ([["shards", String(found?.OpenShardCount), String(shards)]] as const)
      : []),
  ];
}

async function ofMapping(
  { batchSize, batchWindowSeconds, parallelization, topics }: ConsumerDefinition,
  packing: Pipeline["stream"]["packing"],
  { mapping }: ConsumerResources,
  lambda: LambdaClient,
  call: AbortSignal,
): Promise<readonly Difference[]> {
  if (mapping === undefined) return [];
  const { GetEventSourceMappingCommand } = await import("@aws-sdk/client-lambda");
  const found = await lambda.send(new GetEventSourceMappingCommand({ UUID: mapping }), { abortSignal: call });
  const filters = (found.FilterCriteria?.Filters ?? []).flatMap(({ Pattern }) => Pattern ?? []);
  const wanted = topicFilters(topics, packing)?.map((filter) => JSON.stringify(filter)) ?? [];
  return [
    ["batchSize", String(found.BatchSize), String(batchSize)],
    ["batchWindowSeconds", String(found.MaximumBatchingWindowInSeconds ?? 0), String(batchWindowSeconds)],
    ["parallelization", String(found.ParallelizationFactor ?? 1), String(parallelization)],
    ["filters", filtersText(filters), filtersText(wanted)],
  ];
}

async function ofFunction(
  { timeoutSeconds, memoryMB }: ConsumerDefinition,
  { function: name }: ConsumerResources,
  lambda: LambdaClient,
  call: AbortSignal,
): Promise<readonly Difference[]> {
  if (name === undefined) return [];
  const { GetFunctionConfigurationCommand } = await import("@aws-sdk/client-lambda");
  const found = await lambda.send(new GetFunctionConfigurationCommand({ FunctionName: name }), {
    abortSignal: call,
  });
  return [
    ["timeoutSeconds", String(found.Timeout), String(timeoutSeconds)],
    ["memoryMB", String(found.MemorySize), String(memoryMB)],
  ];
}

/** Filters are alternatives: their order says nothing. */
function filtersText(filters: readonly string[]): string {
  return filters.length === 0 ? "none" : filters.toSorted().join(" or ");
}
