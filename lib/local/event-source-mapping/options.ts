import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { LambdaFunction } from "../lambda/host.ts";
import type { CheckpointStore } from "./checkpoint.ts";
import type { FilterPattern } from "./filter.ts";

/** The settings of a mapping, with the names and meanings of AWS. */
export interface MappingSettings {
  /** Records in an invocation at most. */
  readonly batchSize: number;
  /** Time that an invocation waits for a full batch, in seconds. */
  readonly maximumBatchingWindowSeconds: number;
  /** Lanes of a shard: invocations at once, by partition key. */
  readonly parallelizationFactor: number;
}

/**
 * An event source mapping as Tributary's consumers run with it: from TRIM_HORIZON, with ReportBatchItemFailures. Defaults are those
 * of AWS.
 * https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
 */
export interface EventSourceMappingOptions extends Partial<MappingSettings> {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
  readonly functionHost: Pick<LambdaFunction, "name" | "invoke">;
  /** Up to five patterns on `data`; a record that matches none is passed over. */
  readonly filters?: readonly FilterPattern[];
  /** Checkpoints from which a restarted mapping goes on; default: a new store in memory. */
  readonly checkpoints?: CheckpointStore;
}
