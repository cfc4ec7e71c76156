import { topicFilters } from "../../consume/api/topic-filters.ts";
import type { ConsumerDefinition } from "../../definition/definition.ts";
import { type EventSourceMapping, runEventSourceMapping } from "../../local/event-source-mapping/mapping.ts";
import { type LambdaFunction, startLambdaFunction } from "../../local/lambda/host.ts";
import type { AwsClients } from "../../local/resources.ts";

/** A consumer as it runs: its processes, and what feeds them. */
export interface RiggedConsumer {
  readonly definition: ConsumerDefinition;
  readonly function: LambdaFunction;
  readonly mapping: EventSourceMapping;
  /** Classes of the errors that invocations failed with. Whoever reads them may take them off. */
  readonly failures: string[];
  /** The last batches that were given to the function, to give them again. */
  lastBatches(): readonly unknown[];
}

/** Settings of `startRiggedConsumer`. */
export interface RiggedConsumerOptions {
  readonly kinesis: AwsClients["kinesis"];
  readonly stream: string;
  /** Endpoints of AWS, as the handler's process reaches them. */
  readonly surroundings: Readonly<Record<string, string>>;
  /** Variables of the handler's process. */
  readonly environment: Readonly<Record<string, string>>;
  readonly onLog: ((line: string) => void) | undefined;
}

const KEPT_BATCHES = 50;
const DRAIN_MS = 15_000;

/** Starts a consumer's function and its event source mapping; both end with `stack`. */
export async function startRiggedConsumer(
  definition: ConsumerDefinition,
  options: RiggedConsumerOptions,
  stack: AsyncDisposableStack,
): Promise<RiggedConsumer> {
  const lambda = await startLambdaFunction({
    entry: definition.entry,
    name: `checked-${definition.name}`,
    timeoutMs: definition.timeoutSeconds * 1000,
    memoryMB: definition.memoryMB,
    concurrency: definition.parallelization * 16,
    surroundings: options.surroundings,
    environment: options.environment,
    onLog: (line) => options.onLog?.(`${definition.name}: ${line}`),
  });
  stack.defer(() => lambda.stop());
  const batches: unknown[] = [];
  const failures: string[] = [];
  const filters = topicFilters(definition.topics);
  const mapping = await runEventSourceMapping({
    kinesis: options.kinesis,
    streamName: options.stream,
    batchSize: definition.batchSize,
    maximumBatchingWindowSeconds: definition.batchWindowSeconds,
    parallelizationFactor: definition.parallelization,
    ...(filters ? { filters } : {}),
    functionHost: {
      name: lambda.name,
      invoke: (event) => {
        batches.push(event);
        if (batches.length > KEPT_BATCHES) batches.shift();
        return lambda.invoke(event);
      },
    },
  });
  mapping.events.on("invoked", ({ error }) => void (error && failures.push(error)));
  stack.defer(() => mapping.stop(DRAIN_MS));
  return {
    definition,
    function: lambda,
    mapping,
    failures,
    lastBatches: () => [...batches],
  };
}
