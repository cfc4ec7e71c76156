import { pauseKey, startPositionKey } from "./state-key.ts";

/*
 * Which partition keys of the state table each role may use, for IAM's dynamodb:LeadingKeys; `*` stands for any text. Names of pipelines
 * and consumers contain no `#`, so a pattern for one never matches a key of another.
 */

/** Partition keys of all items of a pipeline. */
export function pipelinePartitionKeys(pipeline: string): readonly string[] {
  return [`${pipeline}#*`];
}

/** Partition keys of the items that one consumer and its redrive write and read. */
export function consumerPartitionKeys(pipeline: string, consumer: string): readonly string[] {
  const { pk } = startPositionKey({ pipeline, consumer });
  return [pk, `${pk}#*`];
}

/** The partition key of all pauses: a consumer looks up its own. */
export function pausesPartitionKey(pipeline: string): string {
  return pauseKey(pipeline).pk;
}
