import { type KinesisClient, ListShardsCommand } from "@aws-sdk/client-kinesis";

/** A function in a network without a way to Kinesis would wait for its whole time. */
const PATIENCE_MS = 3_000;

/**
 * The shards that a shard was split or merged from, as far as the stream still lists it.
 * @throws what Kinesis answers.
 */
export async function shardParents(
  kinesis: KinesisClient,
  streamArn: string,
  shardId: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  // With a fan-out of its own: "arn:aws:kinesis:…:stream/name/consumer/its-name:1604012345".
  const streamName = /:stream\/([^/]+)/.exec(streamArn)?.[1] ?? "";
  const until = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
  let next: string | undefined;
  do {
    const { Shards = [], NextToken } = await kinesis.send(
      new ListShardsCommand(next ? { NextToken: next } : { StreamName: streamName }),
      { abortSignal: until },
    );
    const shard = Shards.find(({ ShardId }) => ShardId === shardId);
    if (shard) return [shard.ParentShardId, shard.AdjacentParentShardId].filter((id) => id !== undefined);
    next = NextToken;
  } while (next);
  return [];
}
