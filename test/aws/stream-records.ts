import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
} from "@aws-sdk/client-kinesis";
import { parseRecord, type StreamRecord } from "../../lib/change/record.ts";

/** A record as it stands in the stream. */
export interface StoredRecord {
  readonly partitionKey: string;
  readonly bytes: number;
  readonly shardId: string;
  readonly data: Uint8Array;
  readonly record: StreamRecord;
}

/** All that stands in the stream now, each shard in its order. */
export async function readStream(kinesis: KinesisClient, StreamName: string): Promise<StoredRecord[]> {
  const { Shards = [] } = await kinesis.send(new ListShardsCommand({ StreamName }));
  const stored: StoredRecord[] = [];
  for (const { ShardId = "" } of Shards) {
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
  }
  return stored;
}
