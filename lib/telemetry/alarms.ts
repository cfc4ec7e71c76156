import type { CAPTURE_METRIC, CONSUMER_METRIC, PAUSE_METRIC, STANDING_METRIC } from "./metrics.ts";

/*
 * The alarms of a pipeline: cdk/constructs/pipeline-alarms.ts makes them, docs/11-operations.md lists them. In their texts
 * `{threshold}` and `{consumer}` stand for what a stack has.
 */

/**
 * How urgent an alarm is. `page`: changes do not arrive, or are lost if nobody acts within hours. `ticket`: the rest goes on, and
 * somebody sees to it by day.
 */
export type Severity = "page" | "ticket";

/** One alarm: what rings, what that means, and what to do. */
export interface Alarm<M extends string = string> {
  readonly metric: M;
  /** Rings at or above it, unless `below`. A name stands for what a stack may choose. */
  readonly threshold: number | ThresholdName;
  readonly below?: true;
  readonly severity: Severity;
  /** Periods of the metric, consecutive unless `outOf`; default 5. */
  readonly periods?: number;
  /** So many periods are looked at, of which `periods` must ring. */
  readonly outOf?: number;
  /** Meaning of missing data: `dead` rings, `keep` leaves the alarm as it is. Default: nothing happens, nothing rings. */
  readonly missing?: "dead" | "keep";
  /** Alarms of the same slot or consumer that say the cause: while one of them rings, this one notifies nobody. */
  readonly unless?: readonly string[];
  readonly meaning: string;
  readonly remedy: string;
  /** What becomes of the pipeline if nobody acts: `tributary explain <alarm>` says it. */
  readonly ifNothing: string;
}

/** Returns the anchor of an alarm's entry in docs/11-operations.md: `alarm-slotinactive`. Small letters: those of other Markdown pages are too. */
export function alarmAnchor(kind: string): string {
  return `alarm-${kind.toLowerCase()}`;
}

/** Thresholds that a stack may choose. */
export type ThresholdName = "lagBytes" | "lag" | "walBudgetPercent" | "walLoss" | "freshness" | "iteratorAge";

/** Consecutive periods that an alarm waits for. */
export const PERIODS = 5;

/** Thresholds of a stack that chooses none: in the metric's unit, and in words. */
export const THRESHOLD = {
  lagBytes: { value: 1024 ** 3, text: "1 GiB" },
  lag: { value: 600_000, text: "10 minutes" },
  walBudgetPercent: { value: 30, text: "30" },
  walLoss: { value: 7_200, text: "2 hours" },
  freshness: { value: 900_000, text: "15 minutes" },
  /** Per second of the stream's retention. */
  iteratorAge: { value: 250, text: "a quarter of the stream's retention" },
} as const;

/** Per cent of the stream's retention that a pause may take before `PauseRetention` rings. */
export const PAUSE_RETENTION_PERCENT = 50;

/** Metrics of others, and those that are counted in a log: by name, of which of them, and their period where it is not a minute. */
export const OTHER_METRIC: Readonly<
  Record<OtherMetric, { readonly name: string; readonly of?: string; readonly minutes?: number }>
> = {
  captureStarts: { name: "CaptureStarts/<stage>/<pipeline>", minutes: 15 },
  capturePutAside: { name: "ApproximateNumberOfMessagesVisible", of: "capture's dead-letter queue" },
  oldestSlotLag: { name: "OldestReplicationSlotLag", of: "RDS" },
  readThrottled: { name: "ReadProvisionedThroughputExceeded", of: "the stream" },
  iteratorAge: { name: "IteratorAge", of: "its function" },
  deadLetters: { name: "ApproximateNumberOfMessagesVisible", of: "its dead-letter queue" },
  errors: { name: "Errors", of: "its function" },
  unread: {
    name: "records come in, none are polled: `IncomingRecords` of the stream, `PolledEventCount` of its mapping,",
    minutes: 5,
  },
  functionThrottles: { name: "Throttles", of: "its function" },
};

/** Their keys. */
export type OtherMetric =
  | "captureStarts"
  | "capturePutAside"
  | "oldestSlotLag"
  | "readThrottled"
  | "iteratorAge"
  | "deadLetters"
  | "errors"
  | "unread"
  | "functionThrottles";

/** The metric of an alarm of a capture task, one for each slot. */
export type CaptureAlarmMetric = keyof typeof CAPTURE_METRIC | "captureStarts";

/** The metric of an alarm of a consumer, one for each. */
export type ConsumerAlarmMetric =
  | keyof typeof CONSUMER_METRIC
  | keyof typeof PAUSE_METRIC
  | keyof typeof STANDING_METRIC
  | "iteratorAge"
  | "deadLetters"
  | "errors"
  | "unread"
  | "functionThrottles";

/** Of the capture task, by what it reads: `slots` of a log, one set for each, or `tables`. */
export const SOURCE_ALARM = {
  slots: {
    SlotInactive: {
      metric: "slotActive",
      severity: "page",
      threshold: 1,
      below: true,
      missing: "dead",
      meaning:
        "The capture task does not read its slot, or does not run: PostgreSQL keeps all WAL from here on.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; tributary explain <code> says more of its code. If the pipeline is not to come back, drop the slot: tributary teardown. Where somebody has paused it (tributary status says who): tributary capture resume.",
      ifNothing:
        "PostgreSQL keeps all WAL from the slot's position on: up to max_slot_wal_keep_size, beyond which the slot is lost, or without that bound until the disk is full.",
    },
    ReplicationLag: {
      metric: "replicationLagBytes",
      severity: "page",
      threshold: "lagBytes",
      periods: 10,
      // A dead task is told by SlotInactive.
      missing: "keep",
      meaning: "More than {threshold} of WAL wait to be captured.",
      remedy:
        "Look at the dashboard's capture row: throttles ask for shards; a busy task (CPU) for a larger one; none of both: a large transaction or a long open one at the server.",
      ifNothing:
        "Sinks fall further behind, and PostgreSQL keeps the WAL that waits: up to max_slot_wal_keep_size, beyond which the slot is lost.",
    },
    TopicHeld: {
      metric: "heldTopics",
      severity: "page",
      threshold: 1,
      periods: 1,
      meaning:
        "A topic is held: a change of it cannot become an event. Its changes are stored in order; all other topics go on.",
      remedy:
        "`tributary capture status` says which change, and why. Correct that, then `tributary capture release --topic <topic>`. The stored objects live as long as the claim bucket keeps them (about 90 days).",
      ifNothing:
        "The topic's changes go on being stored, 10 GiB at most; at that bound capture stands for all topics. Stored objects expire after about 90 days.",
    },
    TableUnhealed: {
      metric: "unhealedTables",
      severity: "ticket",
      threshold: 1,
      periods: 1,
      meaning:
        "Changes of a table may be missing in the stream: the publication was changed and left some out. Everything else goes on.",
      remedy:
        "`tributary capture status` names the tables, what may be missing and since when. `tributary backfill start --table <table>` reads them again, with a sweep; `tributary capture release --table <table>` accepts it.",
      ifNothing: "Sinks may lack changes of these tables for good.",
    },
    LeftoverSlot: {
      metric: "leftoverSlots",
      severity: "ticket",
      threshold: 1,
      meaning:
        "A server that is not read from has a slot of this pipeline, as an old primary does that came back after a failover: it keeps WAL until its disk is full.",
      remedy: "The capture log names the server, and the statement to run there.",
      ifNothing: "The disk of the server that is not read from fills.",
    },
    WalBudget: {
      metric: "walBudgetLeft",
      severity: "page",
      threshold: "walBudgetPercent",
      below: true,
      meaning:
        "Of max_slot_wal_keep_size little is left: beyond it PostgreSQL removes WAL that was not captured, and the slot is lost.",
      remedy:
        "Raise max_slot_wal_keep_size now if the disk allows (a reload does), then find what lags: SlotInactive, ReplicationLag.",
      ifNothing:
        "The slot is lost when nothing is left: a new epoch must begin, and what was committed meanwhile is not in the stream.",
    },
    WalLoss: {
      metric: "walLossSeconds",
      severity: "page",
      threshold: "walLoss",
      below: true,
      meaning: "If it goes on like this the slot is lost soon.",
      remedy:
        "Raise max_slot_wal_keep_size now; look for the burst of writes, and for what holds capture back.",
      ifNothing:
        "The slot is lost in about the time that the metric says: a new epoch must begin, and what was committed meanwhile is not in the stream.",
    },
  },
  tables: {
    SourceDisconnected: {
      metric: "sourceConnected",
      severity: "page",
      threshold: 1,
      below: true,
      missing: "dead",
      meaning:
        "The capture task is not connected to its database, or does not run: changes wait in their tables.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; tributary explain <code> says more of its code. Where somebody has paused it (tributary status says who): tributary capture resume.",
      ifNothing: "Changes wait in their tables, which grow; sinks stay as they are.",
    },
    CaptureLag: {
      metric: "replicationLagMs",
      severity: "page",
      threshold: "lag",
      periods: 10,
      // A dead task is told by SourceDisconnected.
      missing: "keep",
      meaning: "Changes wait for more than {threshold} to be captured.",
      remedy:
        "Look at the dashboard's capture row: throttles ask for shards, a busy task (CPU) for a larger one. A long open transaction holds back what was committed after it began.",
      ifNothing: "Sinks fall further behind; changes wait in their tables.",
    },
  },
} as const satisfies Record<"slots" | "tables", Record<string, Alarm<CaptureAlarmMetric>>>;

/** Of every capture task, whatever it reads. */
export const CAPTURE_ALARM = {
  CaptureRestarting: {
    metric: "captureStarts",
    severity: "page",
    // Two starts within 15 minutes are a deploy; more are a task that does not come up.
    threshold: 3,
    periods: 1,
    unless: ["SlotInactive", "SourceDisconnected"],
    meaning: "The capture task starts again and again.",
    remedy:
      "Its log says why it ended (ERROR line with code and remedy). Without such a line look at the stopped task's reason: out of memory, image, health check.",
    ifNothing:
      "Nothing is captured while the task does not come up, and PostgreSQL keeps WAL for its slot until the slot is lost or the disk is full.",
  },
  Throttled: {
    metric: "throttles",
    severity: "ticket",
    threshold: 1,
    periods: 10,
    meaning:
      "Kinesis has refused records for ten minutes: the stream is too narrow. Nothing is lost, lag grows.",
    remedy:
      "Give a provisioned stream more shards; an on-demand one doubles by itself within 15 minutes. One hot partition (topics.keys) is helped by neither.",
    ifNothing: "Lag grows while writes are faster than the stream, and PostgreSQL keeps the WAL that waits.",
  },
} as const satisfies Record<string, Alarm<CaptureAlarmMetric>>;

/** Of a pipeline, once: those whose metric the stack has. */
export const PIPELINE_ALARM = {
  PutAside: {
    metric: "capturePutAside",
    severity: "ticket",
    threshold: 1,
    periods: 1,
    meaning:
      "Changes could not become events and were put aside: they are in the dead-letter queue of capture, and their tables are read again.",
    remedy:
      "tributary dlq list --capture names table, position and error. See that the backfill of its table ends well (tributary backfill status): where it is refused, correct the row and start it again. Then tributary dlq redrive --capture deletes the letter.",
    ifNothing:
      "Nothing more happens by itself once their tables were read again; letters expire after the queue's retention.",
  },
  OldestReplicationSlotLag: {
    metric: "oldestSlotLag",
    severity: "page",
    threshold: "lagBytes",
    periods: 10,
    missing: "dead",
    meaning:
      "RDS itself says that a slot of this server holds more than {threshold} of WAL back: ours, or another one. It tells also when our task is dead.",
    remedy:
      "SELECT slot_name, active, restart_lsn FROM pg_replication_slots: one that nobody reads fills the disk. Bring its reader back, or drop it.",
    ifNothing: "The slot goes on holding WAL back until it is lost or the server's disk is full.",
  },
  ReadThrottled: {
    metric: "readThrottled",
    severity: "ticket",
    threshold: 1,
    periods: 10,
    meaning: "Consumers share each shard's 2 MB/s and 5 reads a second, and want more.",
    remedy: "Set enhancedFanOut for the consumers that must not wait, or add shards.",
    ifNothing:
      "Consumers lag behind; records that none has read when the stream's retention is over are gone.",
  },
} as const satisfies Record<string, Alarm<OtherMetric>>;

/** Of each consumer; its name follows the alarm's. */
export const CONSUMER_ALARM = {
  Unread: {
    metric: "unread",
    severity: "page",
    threshold: 1,
    periods: 3,
    // Where few records come in, few periods can tell.
    outOf: 12,
    meaning:
      "Records come into the stream, and nobody polls them for {consumer}: its event source mapping is disabled or has lost its rights, or each shard waits behind a batch that fails. Its function is not invoked, so it says nothing itself.",
    remedy:
      "tributary doctor names a mapping that is disabled or fails, and a right that is missing; put that right, or deploy again. Else look at the function's log. A consumer that is to stand still is paused: tributary consumer pause --consumer {consumer}.",
    ifNothing:
      "The consumer applies nothing; when the stream's retention is over, records expire unread: it stands before a gap then.",
  },
  Late: {
    metric: "lagMs",
    severity: "page",
    threshold: "freshness",
    periods: 1,
    missing: "keep",
    unless: ["Unread"],
    meaning:
      "A change has waited for {consumer} for {threshold} or longer, by what the state table says of it: it is too slow, or stands.",
    remedy:
      "tributary status says how late it is. Errors or throttles of its function: their alarms. Too slow: parallelization, batchSize, memoryMB. ReadThrottled: enhancedFanOut.",
    ifNothing: "The sink falls further behind; IteratorAge rings before records expire.",
  },
  IteratorAge: {
    metric: "iteratorAge",
    severity: "page",
    threshold: "iteratorAge",
    meaning:
      "Consumer {consumer} is given records {threshold} old: when their age reaches the stream's retention they are gone.",
    remedy:
      "Look at its errors and duration. Held at a failing change: correct the handler (tributary consumer status --consumer {consumer}). Too slow: parallelization, batchSize, memoryMB. To win time raise stream.retentionHours.",
    ifNothing:
      "When the age reaches the stream's retention, records expire unread: the partition is held for a gap.",
  },
  PauseRetention: {
    metric: "retentionUsed",
    severity: "page",
    threshold: PAUSE_RETENTION_PERCENT,
    periods: 1,
    meaning:
      "Consumer {consumer} is paused, and the oldest change that it lacks is as old as half of the stream's retention: when all of it is over, that change is gone from the stream.",
    remedy:
      "tributary status says who paused it, and why. To go on: tributary consumer resume --consumer {consumer}. To win time raise stream.retentionHours and deploy.",
    ifNothing: "The stream drops changes that the consumer has not applied: it stands before a gap then.",
  },
  DeadLetters: {
    metric: "deadLetters",
    severity: "ticket",
    threshold: 1,
    periods: 1,
    meaning:
      "Changes failed for good in {consumer}; later changes of their keys wait behind them (poison: park).",
    remedy:
      "tributary dlq list --consumer {consumer} and dlq show say what failed. Correct the handler, deploy, then: tributary dlq redrive --consumer {consumer}. That empties the queue, but for what the list calls superseded: tributary dlq discard --consumer {consumer} --position <position>.",
    ifNothing: "Later changes of the same keys wait behind them; letters expire after the queue's retention.",
  },
  ParkedKeys: {
    metric: "openKeys",
    severity: "ticket",
    threshold: 1,
    periods: 1,
    missing: "keep",
    unless: ["DeadLetters"],
    meaning:
      "Keys of {consumer} have open dead letters, though its queue holds none any more: SQS has forgotten them, the state table has not, and later changes of these keys wait.",
    remedy:
      "tributary consumer status --consumer {consumer} counts them. Correct the handler, deploy, then: tributary redrive --consumer {consumer}.",
    ifNothing:
      "Changes of these keys go on waiting, up to 64 MiB a partition: then the partition is held (ParkingFull).",
  },
  FunctionThrottled: {
    metric: "functionThrottles",
    severity: "ticket",
    threshold: 1,
    meaning:
      "Lambda refuses invocations of {consumer}: the concurrency of the account or of the function is used up. Nothing is lost, its lag grows.",
    remedy:
      "Raise the account's concurrency (Service Quotas), or reserve some for this function. It needs up to shards x parallelization at once.",
    ifNothing: "The consumer lags behind; when the stream's retention is over, records expire unread.",
  },
  Errors: {
    metric: "errors",
    severity: "ticket",
    threshold: 1,
    periods: 3,
    meaning:
      "Invocations of {consumer} end with an error (timeout, memory, its process): batches come again.",
    remedy:
      "Look at its log. Timeout: batchSize or timeoutSeconds; memory: memoryMB; state table: its throttles.",
    ifNothing: "Batches come again until they succeed or the stream's retention is over.",
  },
  Gap: {
    metric: "gaps",
    severity: "page",
    threshold: 1,
    periods: 1,
    meaning:
      "Consumer {consumer} was given a change whose predecessor never came: records expired or were discarded. The partition is held rather than pass over it, its shard goes on.",
    remedy:
      "tributary consumer status --consumer {consumer} names the partition. Find the missing records (the bucket's aws/lambda/); if they are gone: tributary consumer accept-gap --consumer {consumer} --topic <topic>, which has the rows read again.",
    ifNothing:
      "The partition stays held: its changes are stored up to 256 MiB, then its shard waits with all tables in it, until the stream's retention is over.",
  },
  ParkingFull: {
    metric: "parkingFull",
    // The partition is held then: HeldPartitions calls.
    severity: "ticket",
    threshold: 1,
    periods: 1,
    meaning: "So many changes are parked in {consumer} that their partition is held.",
    remedy: "Redrive what is parked (tributary redrive --consumer {consumer}), or give it up with --discard.",
    ifNothing:
      "The partition is held; when its hold is full too, its shard waits until the stream's retention is over, and changes expire.",
  },
  Held: {
    metric: "held",
    severity: "ticket",
    threshold: 1,
    meaning: "Partitions of {consumer} stopped at a change that fails and cannot be passed.",
    remedy:
      "Its log names topic, partition and position. Correct the handler and deploy; it goes on by itself.",
    ifNothing:
      "The partition's changes are stored up to 256 MiB, then its shard waits until the stream's retention is over.",
  },
  HeldPartitions: {
    // What the state table says: the consumer's own gauge ends when it is not invoked.
    metric: "openHolds",
    severity: "page",
    threshold: 1,
    periods: 1,
    missing: "keep",
    meaning:
      "Partitions of {consumer} wait for somebody. Their changes are stored, in order, up to 256 MiB a partition; all else goes on.",
    remedy:
      'tributary redrive --consumer {consumer} --dry-run says what for (key "*"). Correct it and deploy, then: tributary redrive --consumer {consumer}.',
    ifNothing:
      "At 256 MiB a partition its shard waits, with all tables in it; when the stream's retention is over, changes expire.",
  },
  HoldFull: {
    metric: "holdFull",
    severity: "page",
    threshold: 1,
    periods: 1,
    meaning: "A partition of {consumer} holds as much as it may: its shard waits, with all tables in it.",
    remedy:
      "Correct what it waits for before the stream's retention is over, then: tributary redrive --consumer {consumer}.",
    ifNothing: "Changes of all tables in the shard expire when the stream's retention is over.",
  },
} as const satisfies Record<string, Alarm<ConsumerAlarmMetric>>;

/** The composite alarm of a pipeline: it rings while one of its alarms does whose severity is `page`, and notifies nobody itself. */
export const PIPELINE_COMPOSITE = {
  Unhealthy: {
    meaning: "An alarm of this pipeline rings that calls somebody: changes do not arrive, or may be lost.",
    remedy: "The alarms that ring say what to do; tributary status tells of all of it at once.",
    ifNothing: "What the alarms say that ring.",
  },
} as const satisfies Record<string, Pick<Alarm, "meaning" | "remedy" | "ifNothing">>;
