/** Events that a mapping emits while it runs; they never hold data of records. */
export interface MappingEvents {
  /** An invocation has ended; `error` is the class of what it failed with. */
  invoked: [
    {
      shardId: string;
      lane: number;
      records: number;
      completed: number;
      error?: string | undefined;
    },
  ];
  checkpoint: [{ shardId: string; sequenceNumber: string }];
  shardStarted: [{ shardId: string }];
  shardFinished: [{ shardId: string }];
  /** A call to Kinesis or to the checkpoint store failed and is made again; `error` is its class. */
  troubled: [{ shardId?: string | undefined; call: string; error: string }];
  /** The mapping has ended by itself: its stream is gone. */
  failed: [Error];
}

/** Counters of a mapping since its start. */
export interface MappingStats {
  readonly invocations: number;
  readonly failedInvocations: number;
  /** Records read, before filtering. */
  readonly read: number;
  /** Records that a filter dropped. */
  readonly filtered: number;
  /** Records that need not come again, filtered ones not included. */
  readonly completed: number;
  /** Shards being read, and their checkpoints. */
  readonly shards: readonly ShardStats[];
  /** Why the mapping has ended by itself. */
  readonly failure: Error | undefined;
}

/** Progress of one shard of a mapping. */
export interface ShardStats {
  readonly shardId: string;
  /** Last sequence number up to which everything is done, once there is one. */
  readonly checkpoint: string | undefined;
  /** Payload bytes read and not done. */
  readonly pendingBytes: number;
  /** Lag of the last read behind the shard's end, in milliseconds, as Kinesis reports it. */
  readonly millisBehindLatest: number;
}
