import { type KinesisClient, ListShardsCommand } from "@aws-sdk/client-kinesis";

/**
 * The shards that a shard was split or merged from, and theirs, as far as the stream still lists them.
 * @throws what Kinesis answers.
 */
export async function shardParents(
  kinesis: KinesisClient,
  streamArn: string,
  shardId: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const streamName = streamArn.split("/").at(-1) ?? "";
  let next: string | undefined;
  do {
    const { Shards = [], NextToken } = await kinesis.send(
      new ListShardsCommand(next ? { NextToken: next } : { StreamName: streamName }),
      { abortSignal: signal },
    );
    const shard = Shards.find(({ ShardId }) => ShardId === shardId);
    if (shard) return [shard.ParentShardId, shard.AdjacentParentShardId].filter((id) => id !== undefined);
    next = NextToken;
  } while (next);
  return [];
}
