import type { KinesisClient } from "@aws-sdk/client-kinesis";
import { type Environment, kinesisClient } from "./clients.ts";
import { listShards } from "./list-shards.ts";

/** A function in a network without a way to Kinesis would wait for its whole time. */
const PATIENCE_MS = 3_000;

/**
 * Gives the shards that a shard was split or merged from, as far as the stream still lists it.
 * @throws what the stream answers.
 */
export type ShardParents = (
  streamArn: string,
  shardId: string,
  signal: AbortSignal,
) => Promise<readonly string[]>;

/** Asks Kinesis, by a client that is made when it is needed. */
export function kinesisShardParents(
  environment: Environment,
  open: () => Pick<KinesisClient, "send"> = () => kinesisClient(environment),
): ShardParents {
  let kinesis: Pick<KinesisClient, "send"> | undefined;
  return async (streamArn, shardId, signal) => {
    kinesis ??= open();
    const client = kinesis;
    // With a fan-out of its own: "arn:aws:kinesis:…:stream/name/consumer/its-name:1604012345".
    const streamName = /:stream\/([^/]+)/.exec(streamArn)?.[1] ?? "";
    const abortSignal = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
    const send: Parameters<typeof listShards>[1] = (command) => client.send(command, { abortSignal });
    for await (const shard of listShards(streamName, send)) {
      if (shard.ShardId !== shardId) continue;
      return [shard.ParentShardId, shard.AdjacentParentShardId].filter((id) => id !== undefined);
    }
    return [];
  };
}
