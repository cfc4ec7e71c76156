import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
} from "@aws-sdk/client-kinesis";
import { parseRecord, type StreamRecord } from "../../lib/change/record.ts";
import { SHARD_TOPIC } from "../../lib/change/shard-beat.ts";

/** A record as it stands in the stream. */
export interface StoredRecord {
  readonly partitionKey: string;
  readonly bytes: number;
  readonly shardId: string;
  readonly data: Uint8Array;
  readonly record: StreamRecord;
}

/** All that stands in the stream now but the beats of its shards, each shard in its order. */
export async function readStream(kinesis: KinesisClient, StreamName: string): Promise<StoredRecord[]> {
  const shards = await readShards(kinesis, StreamName);
  return shards.flat().filter(({ record }) => record.topic !== SHARD_TOPIC);
}

/** All that stands in the stream now, shard by shard in their order. */
export async function readShards(kinesis: KinesisClient, StreamName: string): Promise<StoredRecord[][]> {
  const { Shards = [] } = await kinesis.send(new ListShardsCommand({ StreamName }));
  const shards: StoredRecord[][] = [];
  for (const { ShardId = "" } of Shards) {
    const stored: StoredRecord[] = [];
    const start = await kinesis.send(
      new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" }),
    );
    let iterator = start.ShardIterator;
    while (iterator !== undefined) {
      const page = await kinesis.send(new GetRecordsCommand({ ShardIterator: iterator }));
      for (const { Data = new Uint8Array(), PartitionKey = "" } of page.Records ?? []) {
        stored.push({
          partitionKey: PartitionKey,
          bytes: Data.length,
          shardId: ShardId,
          data: Data,
          record: parseRecord(Data),
        });
      }
      iterator = page.Records?.length ? page.NextShardIterator : undefined;
    }
    shards.push(stored);
  }
  return shards;
}
