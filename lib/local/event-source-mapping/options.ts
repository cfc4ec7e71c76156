import type { KinesisClient } from "@aws-sdk/client-kinesis";
import * as z from "zod";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { LambdaFunction } from "../lambda/host.ts";
import type { CheckpointStore } from "./checkpoint.ts";
import { compileFilters, type FilterPattern } from "./filter.ts";

const range = (min: number, max: number, what: string) => {
  const error = `write ${what}, ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};

const settings = z.object({
  streamName: z.string().regex(/^[a-zA-Z0-9_.-]{1,128}$/, { error: "write the name of a Kinesis stream" }),
  startingPosition: z.enum(["TRIM_HORIZON", "LATEST"]),
  /** Records in an invocation at most. */
  batchSize: range(1, 10_000, "a number of records").default(100),
  /** How long an invocation waits for a full batch, in seconds. */
  maximumBatchingWindowSeconds: range(0, 300, "seconds").default(0),
  /** Lanes of a shard: invocations at once, by partition key. */
  parallelizationFactor: range(1, 10, "a number of lanes").default(1),
  /** Whether the handler's reply names the records that failed; without it the reply does not count. */
  reportBatchItemFailures: z.boolean().default(false),
});

/** The settings of a mapping with their defaults, which are those of AWS. */
export type MappingSettings = z.output<typeof settings>;

/**
 * An event source mapping, with the names and meanings of AWS: those options that Tributary's consumers run with.
 * https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
 */
export interface EventSourceMappingOptions extends z.input<typeof settings> {
  readonly kinesis: KinesisClient;
  readonly functionHost: Pick<LambdaFunction, "name" | "arn" | "invoke">;
  /** Up to five patterns on `data`; a record that matches none is passed over. */
  readonly filters?: readonly FilterPattern[];
  /** Checkpoints from which a restarted mapping goes on; default: a new store in memory. */
  readonly checkpoints?: CheckpointStore;
  /** Stops the mapping like `stop()`. */
  readonly signal?: AbortSignal;
}

/** @throws ConfigurationError naming each wrong field */
export function validated(options: EventSourceMappingOptions): {
  readonly settings: MappingSettings;
  readonly matches: (data: Uint8Array) => boolean;
} {
  const parsed = settings.safeParse(options);
  const filters = compileFilters(options.filters ?? []);
  const problems = (parsed.error?.issues ?? []).map((issue) => ({
    path: issue.path.join("."),
    value: options[issue.path[0] as keyof EventSourceMappingOptions],
    remedy: issue.message,
  }));
  if (parsed.success && !filters.problems) return { settings: parsed.data, matches: filters.matches };
  throw new ConfigurationError("The event source mapping", [...problems, ...(filters.problems ?? [])]);
}
