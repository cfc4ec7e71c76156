/*
 * The metrics that the pipeline publishes to CloudWatch, by name: whoever writes them, draws them or alarms on them takes
 * the names from here. Docs: 11-operations.md.
 */

/** The CloudWatch namespace of all of them. */
export const METRICS_NAMESPACE = "Tributary";

/**
 * Dimensions: every metric has `pipeline`; those of a consumer have `consumer` too, those of a table `table`, those of a
 * capture task that reads a further slot (`source.slots`) `slot`: "2", "3".
 */
export const DIMENSION = {
  pipeline: "pipeline",
  consumer: "consumer",
  table: "table",
  slot: "slot",
} as const;

/** One metric: its CloudWatch name and unit, and the statistic that answers its question. */
export interface MetricName {
  readonly name: string;
  readonly unit: "Bytes" | "Count" | "Milliseconds" | "None" | "Percent" | "Seconds";
  /** `Sum` of counters, which are published as what was added; gauges by their worst value. */
  readonly statistic: "Sum" | "Maximum" | "Minimum" | "p99";
}

/**
 * Of the capture task, dimension `pipeline`. While the task runs they are there several times a minute; no data means no
 * task. Those marked "where known" may be missing all the same: their alarms treat missing data as not breaching.
 */
export const CAPTURE_METRIC = {
  /** Bytes of WAL from what is confirmed to the server's end. */
  replicationLagBytes: { name: "ReplicationLagBytes", unit: "Bytes", statistic: "Maximum" },
  /** Age of the newest stored commit while something waits; 0 when nothing does. */
  replicationLagMs: { name: "ReplicationLagMilliseconds", unit: "Milliseconds", statistic: "Maximum" },
  /** 1 while our replication link is open, 0 while it is not. */
  slotActive: { name: "SlotActive", unit: "None", statistic: "Minimum" },
  /** 1 while a source that reads tables (triggers, polling, outbox) is connected, 0 while it is not: it has no slot. */
  sourceConnected: { name: "SourceConnected", unit: "None", statistic: "Minimum" },
  /** WAL that the server keeps for the slot. Where known: from a few seconds after the start. */
  walHeldBytes: { name: "WalHeldBytes", unit: "Bytes", statistic: "Maximum" },
  /** Share of `max_slot_wal_keep_size` that is left; 100 where it has no bound. Where known, as above. */
  walBudgetLeft: { name: "WalBudgetLeft", unit: "Percent", statistic: "Minimum" },
  /** Seconds until the slot is lost if it goes on like this. Only while that threatens. */
  walLossSeconds: { name: "WalLossSeconds", unit: "Seconds", statistic: "Minimum" },
  /** Age of the oldest transaction open at the server, which holds WAL back. Where known. */
  oldestTransactionSeconds: { name: "OldestTransactionSeconds", unit: "Seconds", statistic: "Maximum" },
  /** Slots of our name on servers that are not read from, where DATABASE_URL names several: they hold WAL back there. */
  leftoverSlots: { name: "LeftoverSlots", unit: "Count", statistic: "Maximum" },
  /** Change events that Kinesis acknowledged, and the bytes of their records. */
  changes: { name: "Changes", unit: "Count", statistic: "Sum" },
  bytes: { name: "Bytes", unit: "Bytes", statistic: "Sum" },
  records: { name: "Records", unit: "Count", statistic: "Sum" },
  requests: { name: "Requests", unit: "Count", statistic: "Sum" },
  /** Records sent again; of these, those that Kinesis throttled. */
  retries: { name: "Retries", unit: "Count", statistic: "Sum" },
  throttles: { name: "Throttles", unit: "Count", statistic: "Sum" },
  /** Changes above the record limit, stored apart or cut by policy. */
  oversize: { name: "Oversize", unit: "Count", statistic: "Sum" },
  /** Times that the replication link was opened again. */
  reconnects: { name: "Reconnects", unit: "Count", statistic: "Sum" },
  /** Topics whose changes are stored until somebody releases them, and the bytes that are stored. */
  heldTopics: { name: "HeldTopics", unit: "Count", statistic: "Maximum" },
  heldBytes: { name: "HeldBytes", unit: "Bytes", statistic: "Maximum" },
  /** Tables of which changes may be missing in the stream, until an operator has their rows read again or accepts it. */
  unhealedTables: { name: "UnhealedTables", unit: "Count", statistic: "Maximum" },
  /** Changes that could not become events and were put aside. */
  putAside: { name: "PutAside", unit: "Count", statistic: "Sum" },
  /** Rows whose key changed while a large value stayed, and that are to be read again; a table with very many of them counts once. */
  rowsAsked: { name: "RowsAsked", unit: "Count", statistic: "Maximum" },
  /** Backfills that are under way, paused ones too. */
  backfills: { name: "Backfills", unit: "Count", statistic: "Maximum" },
  /** Bytes of events that Kinesis has not acknowledged, and the age of the oldest. */
  bufferedBytes: { name: "BufferedBytes", unit: "Bytes", statistic: "Maximum" },
  unacknowledgedMs: { name: "UnacknowledgedMilliseconds", unit: "Milliseconds", statistic: "Maximum" },
} as const satisfies Record<string, MetricName>;

/** Of the capture task by table, dimensions `pipeline` and `table`; the busiest tables, the others as `OTHER_TABLES`. */
export const TABLE_METRIC = {
  /** Changes read, and the bytes of their events. */
  changes: { name: "TableChanges", unit: "Count", statistic: "Sum" },
  bytes: { name: "TableBytes", unit: "Bytes", statistic: "Sum" },
} as const satisfies Record<string, MetricName>;

/** Of the capture task by table, dimensions `pipeline` and `table`, while a backfill of the table is under way. */
export const BACKFILL_METRIC = {
  /** Rows read into the stream. */
  rows: { name: "BackfillRows", unit: "Count", statistic: "Sum" },
  /** Of the server's estimate of the table; 100 when it is done. Missing where there is no estimate. */
  percent: { name: "BackfillPercent", unit: "Percent", statistic: "Maximum" },
} as const satisfies Record<string, MetricName>;

/** The table dimension of all tables beyond the busiest. */
export const OTHER_TABLES = "other";

/** Of a consumer's redrive, dimensions `pipeline` and `consumer`, once a redrive. */
export const REDRIVE_METRIC = {
  /** Parked changes that took effect. */
  redriven: { name: "Redriven", unit: "Count", statistic: "Sum" },
  /** Parked changes that were given up. */
  discarded: { name: "Discarded", unit: "Count", statistic: "Sum" },
  /** Keys that failed again. */
  failed: { name: "RedriveFailed", unit: "Count", statistic: "Sum" },
} as const satisfies Record<string, MetricName>;

/** Of a consumer, dimensions `pipeline` and `consumer`, once an invocation: no data means no changes. */
export const CONSUMER_METRIC = {
  /** Changes that took effect. */
  applied: { name: "Applied", unit: "Count", statistic: "Sum" },
  /** Changes that had taken effect before. */
  duplicates: { name: "Duplicates", unit: "Count", statistic: "Sum" },
  /** Changes that no handler is registered for. */
  unhandled: { name: "Unhandled", unit: "Count", statistic: "Sum" },
  /** Control events, and what a backfill read for another consumer. */
  passed: { name: "Passed", unit: "Count", statistic: "Sum" },
  /** Handler calls beyond the first. */
  retried: { name: "Retried", unit: "Count", statistic: "Sum" },
  deadLettered: { name: "DeadLettered", unit: "Count", statistic: "Sum" },
  /** Changes parked: those that failed, those that wait behind one, and partitions stopped by a full parking place. */
  parked: { name: "Parked", unit: "Count", statistic: "Sum" },
  parkedBehind: { name: "ParkedBehind", unit: "Count", statistic: "Sum" },
  parkingFull: { name: "ParkingFull", unit: "Count", statistic: "Sum" },
  /** Open dead letters that a later change made pointless. */
  superseded: { name: "Superseded", unit: "Count", statistic: "Sum" },
  /** Partitions stopped because a change before never came. */
  gaps: { name: "Gaps", unit: "Count", statistic: "Sum" },
  /** Times that a partition stopped at a change that failed and cannot be passed. */
  held: { name: "Held", unit: "Count", statistic: "Sum" },
  /** Partitions that wait for somebody while their shards go on, and the bytes of records that they hold. */
  heldPartitions: { name: "HeldPartitions", unit: "Count", statistic: "Maximum" },
  heldBytes: { name: "HeldPartitionBytes", unit: "Bytes", statistic: "Maximum" },
  /** Partitions of which no more can be held: their shards wait. */
  holdFull: { name: "HoldFull", unit: "Count", statistic: "Sum" },
  /** Partitions whose records come again, whatever the reason. */
  failedPartitions: { name: "FailedPartitions", unit: "Count", statistic: "Sum" },
  /** Records dropped because a newer capture task had written behind them. */
  staleWriter: { name: "StaleWriterRecords", unit: "Count", statistic: "Sum" },
  /** From commit at the source to the handler's success. */
  commitToEffectMs: { name: "CommitToEffectMilliseconds", unit: "Milliseconds", statistic: "p99" },
} as const satisfies Record<string, MetricName>;
