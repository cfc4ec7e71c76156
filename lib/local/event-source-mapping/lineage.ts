import type { Shard } from "@aws-sdk/client-kinesis";

/** The shards a shard came out of: one after a split, two after a merge, none at the stream's creation. */
function parentsOf(shard: Shard): string[] {
  return [shard.ParentShardId, shard.AdjacentParentShardId].filter((id) => id !== undefined);
}

/**
 * The shards that may be read now: those not begun whose parents are all finished, or no longer listed (past the
 * retention). A record of a key is so never read before the older ones of the same key in the parent.
 */
export function startableShards(
  shards: readonly Shard[],
  begun: ReadonlySet<string>,
  finished: ReadonlySet<string>,
): Shard[] {
  const listed = new Set(shards.map((shard) => shard.ShardId));
  return shards.filter((shard) => {
    const id = shard.ShardId ?? "";
    if (begun.has(id) || finished.has(id)) return false;
    return parentsOf(shard).every((parent) => finished.has(parent) || !listed.has(parent));
  });
}

/** Finished shards whose children are not listed yet; a closed shard always gets some. */
export function childless(shards: readonly Shard[], finished: ReadonlySet<string>): string[] {
  const parents = new Set(shards.flatMap(parentsOf));
  return shards.flatMap(({ ShardId = "" }) =>
    finished.has(ShardId) && !parents.has(ShardId) ? [ShardId] : [],
  );
}
