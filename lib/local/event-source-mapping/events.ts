/** Events that a mapping emits while it runs; they never hold data of records. */
export interface MappingEvents {
  /** An invocation has ended; `error` is the class of what it failed with. */
  invoked: [
    {
      shardId: string;
      lane: number;
      records: number;
      completed: number;
      durationMs: number;
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

/** How far one shard of a mapping is. */
export interface ShardStats {
  readonly shardId: string;
  /** Last sequence number up to which everything is done, once there is one. */
  readonly checkpoint: string | undefined;
  /** Payload bytes read and not done. */
  readonly pendingBytes: number;
  /** How far behind the shard's end the last read was, in milliseconds, as Kinesis says. */
  readonly millisBehindLatest: number;
}
