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
        "The capture task does not read its slot, or does not run. PostgreSQL keeps all WAL from now on.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; tributary explain <code> says more about its code. If somebody has paused capture (tributary status says who): tributary capture resume. If the pipeline will not come back, drop the slot: tributary teardown.",
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
      meaning: "More than {threshold} of WAL is waiting to be captured.",
      remedy:
        "Look at the capture row of the dashboard. Throttles: add shards. Busy CPU: a larger task. Neither: look for a large or long-running transaction on the server.",
      ifNothing:
        "Sinks fall further behind, and PostgreSQL keeps the WAL that waits: up to max_slot_wal_keep_size, beyond which the slot is lost.",
    },
    TopicHeld: {
      metric: "heldTopics",
      severity: "page",
      threshold: 1,
      periods: 1,
      meaning:
        "A topic is held: one of its changes cannot become an event. Its changes are stored in order; all other topics go on.",
      remedy:
        "`tributary capture status` says which change, and why. Fix the cause, then `tributary capture release --topic <topic>`. The claim bucket keeps the stored changes for about 90 days.",
      ifNothing:
        "The topic's changes go on being stored, 10 GiB at most; at that bound capture stands for all topics. Stored objects expire after about 90 days.",
    },
    TableUnhealed: {
      metric: "unhealedTables",
      severity: "ticket",
      threshold: 1,
      periods: 1,
      meaning:
        "Changes of a table may be missing from the stream: the publication was altered and left some out. Everything else goes on.",
      remedy:
        "`tributary capture status` names the tables, what may be missing and since when. `tributary backfill start --table <table>` reads a table again, with a sweep; `tributary capture release --table <table>` accepts the loss.",
      ifNothing: "Sinks may lack changes of these tables for good.",
    },
    LeftoverSlot: {
      metric: "leftoverSlots",
      severity: "ticket",
      threshold: 1,
      meaning:
        "A server that capture does not read from still has a slot of this pipeline, for example an old primary that came back after a failover. The slot keeps WAL until that server's disk is full.",
      remedy: "The capture log names the server and the statement to run there.",
      ifNothing: "The disk of that server fills up.",
    },
    WalBudget: {
      metric: "walBudgetLeft",
      severity: "page",
      threshold: "walBudgetPercent",
      below: true,
      meaning:
        "Little of max_slot_wal_keep_size is left. Beyond it PostgreSQL removes WAL that has not been captured, and the slot is lost.",
      remedy:
        "Raise max_slot_wal_keep_size now if the disk allows (a reload is enough), then find out why capture lags: see SlotInactive and ReplicationLag.",
      ifNothing:
        "The slot is lost when nothing is left: a new epoch must begin, and what was committed meanwhile is not in the stream.",
    },
    WalLoss: {
      metric: "walLossSeconds",
      severity: "page",
      threshold: "walLoss",
      below: true,
      meaning: "At the present rate the slot will be lost soon.",
      remedy:
        "Raise max_slot_wal_keep_size now, then look for the burst of writes and for what slows capture down.",
      ifNothing:
        "The slot is lost in about the time that the metric shows: a new epoch must begin, and what was committed meanwhile is not in the stream.",
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
        "The capture task is not connected to its database, or does not run. Changes wait in their tables.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; tributary explain <code> says more about its code. If somebody has paused capture (tributary status says who): tributary capture resume.",
      ifNothing: "Changes wait in their tables, which grow; sinks stay as they are.",
    },
    CaptureLag: {
      metric: "replicationLagMs",
      severity: "page",
      threshold: "lag",
      periods: 10,
      // A dead task is told by SourceDisconnected.
      missing: "keep",
      meaning: "Changes have been waiting for more than {threshold} to be captured.",
      remedy:
        "Look at the capture row of the dashboard. Throttles: add shards. Busy CPU: a larger task. A long-running transaction holds back everything committed after it began.",
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
    meaning: "The capture task keeps restarting.",
    remedy:
      "Its log says why it ended (ERROR line with code and remedy). If there is no such line, look at the reason why ECS stopped the task: out of memory, image, health check.",
    ifNothing:
      "Nothing is captured until the task stays up, and PostgreSQL keeps WAL for its slot until the slot is lost or the disk is full.",
  },
  Throttled: {
    metric: "throttles",
    severity: "ticket",
    threshold: 1,
    periods: 10,
    meaning:
      "Kinesis has throttled records for ten minutes: the stream has too few shards. Nothing is lost, but lag grows.",
    remedy:
      "Give a provisioned stream more shards; an on-demand one doubles by itself within 15 minutes. Neither helps one hot partition (see topics.keys).",
    ifNothing:
      "Lag grows as long as writes outpace the stream, and PostgreSQL keeps the WAL that is waiting.",
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
      "Some changes could not become events and were put aside: they are in capture's dead-letter queue, and their tables are being read again.",
    remedy:
      "tributary dlq list --capture names table, position and error. Check that the backfill of that table completes (tributary backfill status). If it is refused, correct the row and start it again. Then delete the letter: tributary dlq redrive --capture.",
    ifNothing:
      "Once the tables have been read again nothing more happens. The letters expire after the queue's retention.",
  },
  OldestReplicationSlotLag: {
    metric: "oldestSlotLag",
    severity: "page",
    threshold: "lagBytes",
    periods: 10,
    missing: "dead",
    meaning:
      "RDS reports that a slot on this server, ours or another, holds back more than {threshold} of WAL. This alarm works even when our task is dead.",
    remedy:
      "SELECT slot_name, active, restart_lsn FROM pg_replication_slots: a slot that nobody reads fills the disk. Restart its reader, or drop the slot.",
    ifNothing: "The slot keeps holding back WAL until it is lost or the server's disk is full.",
  },
  ReadThrottled: {
    metric: "readThrottled",
    severity: "ticket",
    threshold: 1,
    periods: 10,
    meaning: "Consumers share 2 MB/s and 5 reads a second per shard, and need more.",
    remedy: "Set enhancedFanOut for the consumers that must not wait, or add shards.",
    ifNothing: "Consumers fall behind. Records that are unread when the stream's retention ends are gone.",
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
      "Records arrive in the stream, but nothing polls them for {consumer}: its event source mapping is disabled or has lost its permissions, or every shard is stuck behind a failing batch. The function is not invoked, so it reports nothing itself.",
    remedy:
      "tributary doctor names a disabled or failing mapping and any missing permission: fix that, or deploy again. If it finds nothing, look at the function's log. To stop a consumer on purpose, pause it: tributary consumer pause --consumer {consumer}.",
    ifNothing:
      "The consumer applies nothing. When the stream's retention ends, records expire unread and leave it with a gap.",
  },
  Late: {
    metric: "lagMs",
    severity: "page",
    threshold: "freshness",
    periods: 1,
    missing: "keep",
    unless: ["Unread"],
    meaning:
      "According to the state table, a change has waited for {consumer} for {threshold} or longer: the consumer is too slow or has stopped.",
    remedy:
      "tributary status says how late it is. If its function fails or is throttled, follow those alarms (Errors, FunctionThrottled). Too slow: raise parallelization, batchSize or memoryMB. If ReadThrottled rings: enhancedFanOut.",
    ifNothing: "The sink falls further behind; IteratorAge rings before records expire.",
  },
  IteratorAge: {
    metric: "iteratorAge",
    severity: "page",
    threshold: "iteratorAge",
    meaning:
      "Consumer {consumer} is receiving records that are {threshold} old. When their age reaches the retention, they are gone.",
    remedy:
      "Look at its errors and duration. Held at a failing change (tributary consumer status --consumer {consumer}): correct the handler. Too slow: raise parallelization, batchSize or memoryMB. To gain time, raise stream.retentionHours.",
    ifNothing:
      "When their age reaches the stream's retention, records expire unread and the partition is held at a gap.",
  },
  PauseRetention: {
    metric: "retentionUsed",
    severity: "page",
    threshold: PAUSE_RETENTION_PERCENT,
    periods: 1,
    meaning:
      "Consumer {consumer} is paused, and the oldest change that it has not applied has used up half of the stream's retention. When the retention ends, that change is gone from the stream.",
    remedy:
      "tributary status says who paused it, and why. To resume: tributary consumer resume --consumer {consumer}. To gain time, raise stream.retentionHours and deploy.",
    ifNothing: "The stream drops changes that the consumer has not applied, which leaves it with a gap.",
  },
  DeadLetters: {
    metric: "deadLetters",
    severity: "ticket",
    threshold: 1,
    periods: 1,
    meaning:
      "Some changes failed for good in {consumer}. With poison: park, later changes of the same keys wait behind them.",
    remedy:
      "tributary dlq list --consumer {consumer} and dlq show say what failed. Correct the handler, deploy, then: tributary dlq redrive --consumer {consumer}. That empties the queue except for letters that the list calls superseded; remove those with: tributary dlq discard --consumer {consumer} --position <position>.",
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
      "Some keys of {consumer} have open dead letters, but its queue is empty: the letters have expired in SQS. The state table still has them, and later changes of these keys wait.",
    remedy:
      "tributary consumer status --consumer {consumer} counts them. Correct the handler, deploy, then: tributary redrive --consumer {consumer}.",
    ifNothing:
      "Changes of these keys keep waiting, up to 64 MiB per partition. Then the partition is held (ParkingFull).",
  },
  FunctionThrottled: {
    metric: "functionThrottles",
    severity: "ticket",
    threshold: 1,
    meaning:
      "Lambda throttles {consumer}: the concurrency of the account or of the function is used up. Nothing is lost, but its lag grows.",
    remedy:
      "Raise the account's concurrency (Service Quotas), or reserve some for this function. It needs up to shards x parallelization.",
    ifNothing: "The consumer falls behind. When the stream's retention ends, records expire unread.",
  },
  Errors: {
    metric: "errors",
    severity: "ticket",
    threshold: 1,
    periods: 3,
    meaning:
      "Invocations of {consumer} fail (timeout, out of memory, a crash). Lambda delivers their batches again.",
    remedy:
      "Look at its log. Timeout: change batchSize or timeoutSeconds. Out of memory: raise memoryMB. State table: look at its throttles.",
    ifNothing: "Lambda retries the batches until they succeed or the stream's retention ends.",
  },
  Gap: {
    metric: "gaps",
    severity: "page",
    threshold: 1,
    periods: 1,
    meaning:
      "Consumer {consumer} received a change whose predecessor never arrived: records expired or were discarded. The partition is held so that nothing is skipped; its shard goes on.",
    remedy:
      "tributary consumer status --consumer {consumer} names the partition. Find the missing records (the bucket's aws/lambda/); if they are gone: tributary consumer accept-gap --consumer {consumer} --topic <topic>, which has the rows read again.",
    ifNothing:
      "The partition stays held. Its changes are stored up to 256 MiB; then its shard waits, with all tables in it, until the stream's retention ends.",
  },
  ParkingFull: {
    metric: "parkingFull",
    // The partition is held then: HeldPartitions calls.
    severity: "ticket",
    threshold: 1,
    periods: 1,
    meaning: "Consumer {consumer} has parked so many changes that their partition is held.",
    remedy:
      "Redrive the parked changes (tributary redrive --consumer {consumer}), or give them up with --discard.",
    ifNothing:
      "The partition stays held. When its hold is full too, its shard waits; when the stream's retention ends, changes expire.",
  },
  Held: {
    metric: "held",
    severity: "ticket",
    threshold: 1,
    meaning: "Partitions of {consumer} are stopped at a failing change that must not be skipped.",
    remedy:
      "Its log names topic, partition and position. Correct the handler and deploy; the consumer then continues by itself.",
    ifNothing:
      "The partition's changes are stored up to 256 MiB; then its shard waits until the stream's retention ends.",
  },
  HeldPartitions: {
    // What the state table says: the consumer's own gauge ends when it is not invoked.
    metric: "openHolds",
    severity: "page",
    threshold: 1,
    periods: 1,
    missing: "keep",
    meaning:
      "Partitions of {consumer} are held until somebody acts. Their changes are stored in order, up to 256 MiB per partition; everything else goes on.",
    remedy:
      'tributary redrive --consumer {consumer} --dry-run says why (key "*"). Fix the cause and deploy, then: tributary redrive --consumer {consumer}.',
    ifNothing:
      "At 256 MiB per partition the shard waits, with all tables in it. When the stream's retention ends, changes expire.",
  },
  HoldFull: {
    metric: "holdFull",
    severity: "page",
    threshold: 1,
    periods: 1,
    meaning: "A held partition of {consumer} is full: its shard waits, with all tables in it.",
    remedy:
      "Fix what it waits for before the stream's retention ends, then: tributary redrive --consumer {consumer}.",
    ifNothing: "Changes of all tables in the shard expire when the stream's retention ends.",
  },
} as const satisfies Record<string, Alarm<ConsumerAlarmMetric>>;

/** The composite alarm of a pipeline: it rings while one of its alarms does whose severity is `page`, and notifies nobody itself. */
export const PIPELINE_COMPOSITE = {
  Unhealthy: {
    meaning: "A page alarm of this pipeline rings: changes do not arrive, or may be lost.",
    remedy: "The alarms that ring say what to do; tributary status shows everything at once.",
    ifNothing: "See the alarms that ring.",
  },
} as const satisfies Record<string, Pick<Alarm, "meaning" | "remedy" | "ifNothing">>;
