import { ListShardsCommand, type ListShardsCommandOutput, type Shard } from "@aws-sdk/client-kinesis";

/**
 * Lists the shards of a stream, page by page, as `send` gets them.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ListShards.html
 */
export async function* listShards(
  streamName: string,
  send: (command: ListShardsCommand) => Promise<ListShardsCommandOutput>,
): AsyncGenerator<Shard> {
  let next: string | undefined;
  do {
    const { Shards = [], NextToken } = await send(
      new ListShardsCommand(next ? { NextToken: next } : { StreamName: streamName }),
    );
    yield* Shards;
    next = NextToken;
  } while (next);
}
