/*
 * The metrics that the pipeline publishes to CloudWatch: whoever writes them, draws them (graphs.ts), alarms on them (alarms.ts)
 * or tells of them (metrics-page.ts) takes them from here.
 */

/** The CloudWatch namespace of all of them. */
export const METRICS_NAMESPACE = "Tributary";

/**
 * Dimensions: every metric has `stage` and `pipeline`; those of a consumer have `consumer` too, those of a table `table`, those of a
 * capture task that reads a further slot (`source.slots`) `slot`: "2", "3".
 */
export const DIMENSION = {
  stage: "stage",
  pipeline: "pipeline",
  consumer: "consumer",
  table: "table",
  slot: "slot",
} as const;

/** Whose metrics they are. Two stages of an account have pipelines of one name. */
export interface MeasuredPipeline {
  readonly stage: string;
  readonly pipeline: string;
}

/** Returns the dimensions of a metric of the pipeline: those that all have, and what it has beside. */
export function dimensionsOf(
  { stage, pipeline }: MeasuredPipeline,
  more: Readonly<Record<string, string>> = {},
): Record<string, string> {
  return { [DIMENSION.stage]: stage, [DIMENSION.pipeline]: pipeline, ...more };
}

/** One metric, as CloudWatch and the docs know it. */
export interface Metric {
  readonly name: string;
  readonly unit: "Bytes" | "Count" | "Milliseconds" | "None" | "Percent" | "Seconds";
  /** The one that answers its question: `Sum` of counters, which are published as what was added; gauges by their worst value. */
  readonly statistic: "Sum" | "Maximum" | "Minimum" | "p99";
  /** In Markdown, a line of docs/11-operations.md. A consumer's stand in consumer-meanings.ts, which no function carries along. */
  readonly meaning?: string | undefined;
  /** It may be missing from a healthy task: its alarm treats missing data as not breaching. */
  readonly whereKnown?: boolean;
}

/* Without effects, as bundlers are told: they leave out what nobody uses. */

/* @__NO_SIDE_EFFECTS__ */
function count<const N extends string>(name: N, meaning?: string) {
  return { name, unit: "Count", statistic: "Sum", meaning } as const;
}

/* @__NO_SIDE_EFFECTS__ */
function sum<const N extends string>(name: N, unit: Metric["unit"], meaning: string) {
  return { name, unit, statistic: "Sum", meaning } as const;
}

/* @__NO_SIDE_EFFECTS__ */
function most<const N extends string>(
  name: N,
  unit: Metric["unit"],
  meaning?: string,
  known?: "where known",
) {
  return { name, unit, statistic: "Maximum", meaning, whereKnown: known !== undefined } as const;
}

/* @__NO_SIDE_EFFECTS__ */
function least<const N extends string>(
  name: N,
  unit: Metric["unit"],
  meaning: string,
  known?: "where known",
) {
  return { name, unit, statistic: "Minimum", meaning, whereKnown: known !== undefined } as const;
}

/**
 * Of the capture task, dimensions `stage` and `pipeline`. While the task runs they are there several times a minute; no data means no
 * task, unless they are there `whereKnown`.
 */
export const CAPTURE_METRIC = {
  replicationLagBytes: most(
    "ReplicationLagBytes",
    "Bytes",
    "log between what is confirmed and the server's end",
  ),
  replicationLagMs: most(
    "ReplicationLagMilliseconds",
    "Milliseconds",
    "age of the newest stored commit while something waits; 0 when nothing does: an idle database is not late",
  ),
  slotActive: least(
    "SlotActive",
    "None",
    "1 while our replication link is open, or while the task waits for the end of the first deploy; 0 while it is not",
  ),
  sourceConnected: least(
    "SourceConnected",
    "None",
    "1 while a source that reads tables (triggers, polling, outbox) is connected, or the task waits for the end of the first deploy; 0 while it is not; it has no slot and no WAL",
  ),
  walHeldBytes: most("WalHeldBytes", "Bytes", "log that the server keeps for the slot", "where known"),
  walBudgetLeft: least(
    "WalBudgetLeft",
    "Percent",
    "what is left of `max_slot_wal_keep_size`; 100 where it has no bound (then watch the disk)",
    "where known",
  ),
  walLossSeconds: least(
    "WalLossSeconds",
    "Seconds",
    "time until the slot is lost if it goes on like this; there only while that threatens",
    "where known",
  ),
  oldestTransactionSeconds: most(
    "OldestTransactionSeconds",
    "Seconds",
    "age of the oldest open transaction, which holds log back",
    "where known",
  ),
  leftoverSlots: most(
    "LeftoverSlots",
    "Count",
    "slots of ours on servers that are not read from, where `DATABASE_URL` names several: they hold log back there",
    "where known",
  ),
  changes: count("Changes", "change events that Kinesis acknowledged"),
  bytes: sum("Bytes", "Bytes", "bytes of the records that Kinesis acknowledged"),
  records: count("Records", "records that Kinesis acknowledged"),
  requests: count("Requests", "PutRecords requests, answered or given up"),
  retries: count("Retries", "records sent again"),
  throttles: count("Throttles", "records sent again because Kinesis throttled them"),
  oversize: count("Oversize", "changes above the record limit, stored apart or cut by policy"),
  reconnects: count("Reconnects", "times that the replication link was opened again"),
  heldTopics: most(
    "HeldTopics",
    "Count",
    "topics whose changes wait for a release (`tributary capture status`)",
  ),
  heldBytes: most("HeldBytes", "Bytes", "bytes stored of topics that are held"),
  unhealedTables: most(
    "UnhealedTables",
    "Count",
    "tables of which changes may be missing in the stream ([When the publication changes](05-postgres.md#when-the-publication-changes))",
  ),
  putAside: count("PutAside", "changes that could not become events and are among capture's dead letters"),
  rowsAsked: most(
    "RowsAsked",
    "Count",
    "while there are some: rows that are to be [read again](12-backfill.md#rows-that-are-read-again); a table with very many counts once. Above 0 for long, a transaction is open for long, or the log names a row that cannot be given",
    "where known",
  ),
  backfills: most("Backfills", "Count", "backfills under way, paused ones too"),
  bufferedBytes: most("BufferedBytes", "Bytes", "bytes of events that Kinesis has not acknowledged"),
  unacknowledgedMs: most(
    "UnacknowledgedMilliseconds",
    "Milliseconds",
    "age of the oldest event that Kinesis has not acknowledged",
  ),
} satisfies Record<string, Metric>;

/** Of the capture task by table, dimensions `stage`, `pipeline` and `table`; the busiest tables, the others as `OTHER_TABLES`. */
export const TABLE_METRIC = {
  changes: count("TableChanges", "changes read"),
  bytes: sum("TableBytes", "Bytes", "bytes of the events that were made of them"),
} satisfies Record<string, Metric>;

/** Of the capture task by table, dimensions `stage`, `pipeline` and `table`, while a backfill of the table is under way. */
export const BACKFILL_METRIC = {
  rows: count("BackfillRows", "rows that a backfill read into the stream"),
  percent: most(
    "BackfillPercent",
    "Percent",
    "how far it is, by the server's estimate of the table; 100 when it is done",
    "where known",
  ),
} satisfies Record<string, Metric>;

/** The table dimension of all tables beyond the busiest. */
export const OTHER_TABLES = "other";

/** Of a consumer that is paused, dimensions `stage`, `pipeline` and `consumer`, as the capture task writes it; no data means that it is not paused. */
export const PAUSE_METRIC = {
  retentionUsed: most(
    "PauseRetentionUsed",
    "Percent",
    "written by the capture tasks while the consumer is paused: age of the oldest change that it has not applied (as known when it was paused), as a share of the stream's retention",
    "where known",
  ),
} satisfies Record<string, Metric>;

/**
 * Of each consumer, dimensions `stage`, `pipeline` and `consumer`, as the capture task reads it in the state table about once a minute: they are
 * there whether a function of the consumer is invoked or not, and 0 where nothing waits. No data means that nobody looked.
 */
export const STANDING_METRIC = {
  lagMs: most(
    "ConsumerLagMilliseconds",
    "Milliseconds",
    "written by the capture task about once a minute, like the next two: how long the oldest change that the consumer has not applied has been in the stream, as in `tributary status`, except that held changes do not count; 0 if there is none, and while the consumer is paused",
    "where known",
  ),
  openKeys: most(
    "OpenParkedKeys",
    "Count",
    "keys with open dead letters in the state table, even if the letters have expired in the queue",
  ),
  openHolds: most("OpenHolds", "Count", "partitions that are held until somebody redrives them"),
} satisfies Record<string, Metric>;

/** Of a consumer's redrive, dimensions `stage`, `pipeline` and `consumer`, once a redrive. */
export const REDRIVE_METRIC = {
  redriven: count("Redriven"),
  discarded: count("Discarded"),
  failed: count("RedriveFailed"),
} satisfies Record<string, Metric>;

/** Of a consumer, dimensions `stage`, `pipeline` and `consumer`, once an invocation: no data means no changes. */
export const CONSUMER_METRIC = {
  applied: count("Applied"),
  duplicates: count("Duplicates"),
  unhandled: count("Unhandled"),
  passed: count("Passed"),
  retried: count("Retried"),
  deadLettered: count("DeadLettered"),
  parked: count("Parked"),
  parkedBehind: count("ParkedBehind"),
  parkingFull: count("ParkingFull"),
  superseded: count("Superseded"),
  gaps: count("Gaps"),
  held: count("Held"),
  heldPartitions: most("HeldPartitions", "Count"),
  heldBytes: most("HeldPartitionBytes", "Bytes"),
  holdFull: count("HoldFull"),
  failedPartitions: count("FailedPartitions"),
  staleWriter: count("StaleWriterRecords"),
  commitToEffectMs: {
    name: "CommitToEffectMilliseconds",
    unit: "Milliseconds",
    statistic: "p99",
  },
} satisfies Record<string, Metric>;
