import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import { SnsAction } from "aws-cdk-lib/aws-cloudwatch-actions";
import * as logs from "aws-cdk-lib/aws-logs";
import type * as sns from "aws-cdk-lib/aws-sns";
import { Construct } from "constructs";
import type { MetricSet, SourceKind } from "../../lib/source/source-kind.ts";
import { CAPTURE_STARTS_LINE } from "../../lib/telemetry/log.ts";
import { METRICS_NAMESPACE } from "../../lib/telemetry/metric-names.ts";
import type { CaptureService } from "./capture-service.ts";
import type { ChangeStream } from "./change-stream.ts";
import type { Consumer } from "./consumer.ts";
import type { DeadLetterQueue } from "./dead-letter-queue.ts";
import {
  captureMetric,
  captureStarts,
  captureStartsName,
  consumerMetric,
  iteratorAge,
  oldestSlotLag,
  streamMetric,
} from "./metrics.ts";
import type { DatabaseFacts } from "./source-database.ts";

/** From when on an alarm rings; each has a default. */
export interface AlarmThresholds {
  /** WAL from what is confirmed to the server's end. Default 1 GiB. */
  readonly lagBytes?: number;
  /** Age of what waits to be captured, of a source that reads tables. Default 10 minutes. */
  readonly lag?: Duration;
  /** Share of `max_slot_wal_keep_size` that is left, in per cent. Default 30. */
  readonly walBudgetPercent?: number;
  /** Time until the slot is lost if it goes on like this. Default 2 hours. */
  readonly walLoss?: Duration;
  /** Age of what a consumer is given. Default a quarter of the stream's retention. */
  readonly iteratorAge?: Duration;
}

/** What is alarmed on, and where alarms go. */
export interface PipelineAlarmsProps {
  readonly pipeline: string;
  readonly source: Pick<SourceKind, "metrics">;
  /** One for each slot. */
  readonly captures: readonly CaptureService[];
  readonly changeStream: ChangeStream;
  readonly consumers: readonly Consumer[];
  readonly captureDeadLetters: DeadLetterQueue | undefined;
  readonly database: DatabaseFacts;
  readonly thresholds: AlarmThresholds;
  readonly topic: sns.ITopic | undefined;
}

/** One alarm: what rings, what that means, and what to do. */
interface Rule {
  readonly metric: cloudwatch.IMetric;
  /** Rings at or above it, unless `below`. */
  readonly threshold: number;
  readonly below?: boolean;
  /** Consecutive periods; default 5 of a minute. */
  readonly periods?: number;
  /** What no data means: `dead` rings. Default: nothing happens, nothing rings. */
  readonly missing?: "dead" | "quiet";
  readonly meaning: string;
  readonly remedy: string;
}

const GIB = 1024 ** 3;
const ITERATOR_AGE_SHARE = 0.25;
/** Two starts within 15 minutes are a deploy; more are a task that does not come up. */
const STARTS_OF_A_DEPLOY = 2;

/**
 * The alarms of a pipeline. Those of the capture task ring when they get no data: a dead task says nothing. Each says in
 * its description what it means and what to do.
 */
export class PipelineAlarms extends Construct {
  readonly alarms: readonly cloudwatch.Alarm[];

  constructor(scope: Construct, id: string, props: PipelineAlarmsProps) {
    super(scope, id);
    for (const { logGroup, slot } of props.captures) {
      new logs.MetricFilter(this, named("CaptureStarts", slot), {
        logGroup,
        filterPattern: logs.FilterPattern.stringValue("$.message", "=", CAPTURE_STARTS_LINE),
        metricNamespace: METRICS_NAMESPACE,
        metricName: captureStartsName(props.pipeline, slot),
        metricValue: "1",
        // With every line of the log: no data means no task.
        defaultValue: 0,
      });
    }
    const ofSource = ({ slot }: CaptureService) => SOURCE_RULES[props.source.metrics](props, slot);
    const rules = {
      ...ofSlots(props, ofSource),
      ...asideRules(props),
      ...rdsRules(props),
      ...ofSlots(props, ({ slot }) => captureRules(props, slot)),
      ...streamRules(props),
      ...consumersRules(props),
    };
    this.alarms = Object.entries(rules).map(([name, rule]) => this.#alarm(name, rule, props));
  }

  #alarm(name: string, rule: Rule, { pipeline, topic }: PipelineAlarmsProps): cloudwatch.Alarm {
    const alarm = new cloudwatch.Alarm(this, name, {
      // Read in a mail and on the dashboard; the stack's name keeps two stacks of one account apart.
      alarmName: `${Stack.of(this).stackName}/${pipeline}: ${name}`,
      metric: rule.metric,
      threshold: rule.threshold,
      comparisonOperator: rule.below
        ? cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
        : cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      evaluationPeriods: rule.periods ?? 5,
      treatMissingData:
        rule.missing === "dead"
          ? cloudwatch.TreatMissingData.BREACHING
          : cloudwatch.TreatMissingData.NOT_BREACHING,
      alarmDescription: `${rule.meaning} What to do: ${rule.remedy}`,
    });
    if (topic) {
      alarm.addAlarmAction(new SnsAction(topic));
      alarm.addOkAction(new SnsAction(topic));
    }
    return alarm;
  }
}

/** The rules of each set of metrics that a source may have, by slot. */
const SOURCE_RULES: Readonly<
  Record<MetricSet, (props: PipelineAlarmsProps, slot: number) => Record<string, Rule>>
> = { slots: logRules, tables: tablesRules };

/** The name of what there is once for each slot: that of the first slot is what it was without others. */
function named(name: string, slot: number): string {
  return slot === 1 ? name : `${name}-slot${slot}`;
}

/** The rules of each slot's capture task, by name; an alarm of a further slot says which it is. */
function ofSlots(
  { captures }: PipelineAlarmsProps,
  rules: (capture: CaptureService) => Record<string, Rule>,
): Record<string, Rule> {
  return Object.fromEntries(
    captures.flatMap((capture) =>
      Object.entries(rules(capture)).map(([name, rule]) => {
        const { slot } = capture;
        return [named(name, slot), slot === 1 ? rule : { ...rule, meaning: `Slot ${slot}: ${rule.meaning}` }];
      }),
    ),
  );
}

/** Of a source that reads tables: it has no slot, and holds no log back. */
function tablesRules({ pipeline, thresholds }: PipelineAlarmsProps): Record<string, Rule> {
  const lag = thresholds.lag ?? Duration.minutes(10);
  return {
    SourceDisconnected: {
      metric: captureMetric(pipeline, "sourceConnected"),
      threshold: 1,
      below: true,
      missing: "dead",
      meaning:
        "The capture task is not connected to its database, or does not run: changes wait in their tables.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; its code is in docs/08-errors.md.",
    },
    CaptureLag: {
      metric: captureMetric(pipeline, "replicationLagMs"),
      threshold: lag.toMilliseconds(),
      periods: 10,
      missing: "dead",
      meaning: `Changes wait for more than ${lag.toHumanString()} to be captured, or nobody measures any more.`,
      remedy:
        "Look at the dashboard's capture row: throttles ask for shards, a busy task (CPU) for a larger one. A long open transaction holds back what was committed after it began.",
    },
  };
}

/** Changes of the log that were put aside: one queue for all slots. */
function asideRules({ captureDeadLetters }: PipelineAlarmsProps): Record<string, Rule> {
  if (!captureDeadLetters) return {};
  return {
    PutAside: {
      metric: captureDeadLetters.queue.metricApproximateNumberOfMessagesVisible({
        statistic: cloudwatch.Stats.MAXIMUM,
        period: Duration.minutes(1),
      }),
      threshold: 1,
      periods: 1,
      meaning:
        "Changes could not become events and were put aside: they are in the dead-letter queue of capture, and their tables are read again.",
      remedy:
        "Each letter names table, column, position and error. See that the backfill of its table ends well (tributary backfill status): where it is refused, correct the row and start it again. Then delete the letter.",
    },
  };
}

/** Of the log: a slot that nobody reads fills the server's disk. */
function logRules({ pipeline, thresholds }: PipelineAlarmsProps, slot: number): Record<string, Rule> {
  const lagBytes = thresholds.lagBytes ?? GIB;
  return {
    SlotInactive: {
      metric: captureMetric(pipeline, "slotActive", {}, slot),
      threshold: 1,
      below: true,
      missing: "dead",
      meaning:
        "The capture task does not read its slot, or does not run: PostgreSQL keeps all WAL from here on.",
      remedy:
        "Look at the ECS service's events and the last ERROR line of the capture log; its code is in docs/08-errors.md. If the pipeline is not to come back, drop the slot: tributary teardown.",
    },
    ReplicationLag: {
      metric: captureMetric(pipeline, "replicationLagBytes", {}, slot),
      threshold: lagBytes,
      periods: 10,
      missing: "dead",
      meaning: `More than ${size(lagBytes)} of WAL wait to be captured, or nobody measures any more.`,
      remedy:
        "Look at the dashboard's capture row: throttles ask for shards; a busy task (CPU) for a larger one; none of both: a large transaction or a long open one at the server.",
    },
    TopicHeld: {
      metric: captureMetric(pipeline, "heldTopics", {}, slot),
      threshold: 1,
      periods: 1,
      meaning:
        "A topic is held: a change of it cannot become an event. Its changes are stored in order; all other topics go on.",
      remedy:
        "`tributary capture status` says which change, and why. Correct that, then `tributary capture release --topic …`. The stored objects live as long as the claim bucket keeps them (about 90 days).",
    },
    TableUnhealed: {
      metric: captureMetric(pipeline, "unhealedTables", {}, slot),
      threshold: 1,
      periods: 1,
      meaning:
        "Changes of a table may be missing in the stream: the publication was changed and left some out. Everything else goes on.",
      remedy:
        "`tributary capture status` names the tables, what may be missing and since when. `tributary backfill start --table …` reads them again, with a sweep; `tributary capture release --table …` accepts it.",
    },
    LeftoverSlot: {
      metric: captureMetric(pipeline, "leftoverSlots", {}, slot),
      threshold: 1,
      periods: 5,
      meaning:
        "A server that is not read from has a slot of this pipeline, as an old primary does that came back after a failover: it keeps WAL until its disk is full.",
      remedy: "The capture log names the server, and the statement to run there.",
    },
    WalBudget: {
      metric: captureMetric(pipeline, "walBudgetLeft", {}, slot),
      threshold: thresholds.walBudgetPercent ?? 30,
      below: true,
      meaning:
        "Of max_slot_wal_keep_size little is left: beyond it PostgreSQL removes WAL that was not captured, and the slot is lost.",
      remedy:
        "Raise max_slot_wal_keep_size now if the disk allows (a reload does), then find what lags: SlotInactive, ReplicationLag.",
    },
    WalLoss: {
      metric: captureMetric(pipeline, "walLossSeconds", {}, slot),
      threshold: (thresholds.walLoss ?? Duration.hours(2)).toSeconds(),
      below: true,
      meaning: "If it goes on like this the slot is lost soon.",
      remedy:
        "Raise max_slot_wal_keep_size now; look for the burst of writes, and for what holds capture back.",
    },
  };
}

/** What RDS itself says, of all slots of the server. */
function rdsRules({ source, database, thresholds }: PipelineAlarmsProps): Record<string, Rule> {
  const slotLag = source.metrics === "slots" ? oldestSlotLag(database) : undefined;
  const lagBytes = thresholds.lagBytes ?? GIB;
  return {
    ...(slotLag
      ? {
          OldestReplicationSlotLag: {
            metric: slotLag,
            threshold: lagBytes,
            periods: 10,
            // Every RDS instance of PostgreSQL publishes it; Aurora may not.
            missing: database.metricsDimension?.DBInstanceIdentifier ? ("dead" as const) : ("quiet" as const),
            meaning: `RDS itself says that a slot of this server holds more than ${size(lagBytes)} of WAL back: ours, or another one. It tells also when our task is dead.`,
            remedy:
              "SELECT slot_name, active, restart_lsn FROM pg_replication_slots: one that nobody reads fills the disk. Bring its reader back, or drop it.",
          },
        }
      : {}),
  };
}

function captureRules({ pipeline }: PipelineAlarmsProps, slot: number): Record<string, Rule> {
  return {
    CaptureRestarting: {
      metric: captureStarts(pipeline, slot),
      threshold: STARTS_OF_A_DEPLOY + 1,
      periods: 1,
      missing: "dead",
      meaning: "The capture task starts again and again, or nothing of it runs.",
      remedy:
        "Its log says why it ended (ERROR line with code and remedy). Without such a line look at the stopped task's reason: out of memory, image, health check.",
    },
    Throttled: {
      metric: captureMetric(pipeline, "throttles", {}, slot),
      threshold: 1,
      periods: 10,
      missing: "dead",
      meaning:
        "Kinesis has refused records for ten minutes: the stream is too narrow. Nothing is lost, lag grows.",
      remedy:
        "Give a provisioned stream more shards; an on-demand one doubles by itself within 15 minutes. One hot partition (topics.keys) is helped by neither.",
    },
  };
}

function streamRules({ changeStream }: PipelineAlarmsProps): Record<string, Rule> {
  return {
    ReadThrottled: {
      metric: streamMetric(changeStream.stream, "ReadProvisionedThroughputExceeded"),
      threshold: 1,
      periods: 10,
      meaning: "Consumers share each shard's 2 MB/s and 5 reads a second, and want more.",
      remedy: "Set enhancedFanOut for the consumers that must not wait, or add shards.",
    },
  };
}

function consumersRules({
  pipeline,
  consumers,
  changeStream,
  thresholds,
}: PipelineAlarmsProps): Record<string, Rule> {
  const age =
    thresholds.iteratorAge?.toMilliseconds() ?? changeStream.retention.toMilliseconds() * ITERATOR_AGE_SHARE;
  return Object.assign({}, ...consumers.map((consumer) => consumerRules(pipeline, consumer, age)));
}

function consumerRules(
  pipeline: string,
  { name, function: handler, deadLetterQueue }: Consumer,
  ageMs: number,
): Record<string, Rule> {
  const minute = Duration.minutes(1);
  return {
    [`IteratorAge-${name}`]: {
      metric: iteratorAge(handler),
      threshold: ageMs,
      meaning: `Consumer ${name} is given records ${hours(ageMs)} old: when their age reaches the stream's retention they are gone.`,
      remedy:
        "Look at its errors and duration. Held at a failing change: docs/04-consumers.md, poison. Too slow: parallelization, batchSize, memoryMB. To win time raise stream.retentionHours.",
    },
    [`DeadLetters-${name}`]: {
      metric: deadLetterQueue.queue.metricApproximateNumberOfMessagesVisible({
        statistic: cloudwatch.Stats.MAXIMUM,
        period: minute,
      }),
      threshold: 1,
      periods: 1,
      meaning: `Changes failed for good in ${name}; later changes of their keys wait behind them (poison: park).`,
      remedy: `Read the letter's error, correct the handler, deploy, then: tributary redrive --consumer ${name}.`,
    },
    [`Errors-${name}`]: {
      metric: handler.metricErrors({ period: minute }),
      threshold: 1,
      periods: 3,
      meaning: `Invocations of ${name} end with an error (timeout, memory, its process): batches come again.`,
      remedy:
        "Look at its log. Timeout: batchSize or timeoutSeconds; memory: memoryMB; state table: its throttles.",
    },
    [`Gap-${name}`]: {
      metric: consumerMetric(pipeline, name, "gaps"),
      threshold: 1,
      periods: 1,
      meaning: `Consumer ${name} was given a change whose predecessor never came: records expired or were discarded. The partition is held rather than pass over it, its shard goes on.`,
      remedy:
        "docs/08-errors.md, GAP: find the missing records (the bucket's aws/lambda/), or fill the consumer anew.",
    },
    [`ParkingFull-${name}`]: {
      metric: consumerMetric(pipeline, name, "parkingFull"),
      threshold: 1,
      periods: 1,
      meaning: `So many changes are parked in ${name} that their partition is held.`,
      remedy: `Redrive what is parked (tributary redrive --consumer ${name}), or give it up with --discard.`,
    },
    [`Held-${name}`]: {
      metric: consumerMetric(pipeline, name, "held"),
      threshold: 1,
      meaning: `Partitions of ${name} stopped at a change that fails and cannot be passed.`,
      remedy:
        "Its log names topic, partition and position. Correct the handler and deploy; it goes on by itself.",
    },
    [`HeldPartitions-${name}`]: {
      metric: consumerMetric(pipeline, name, "heldPartitions"),
      threshold: 1,
      meaning: `Partitions of ${name} wait for somebody. Their changes are stored, in order, up to 256 MiB a partition; all else goes on.`,
      remedy: `tributary redrive --consumer ${name} --dry-run says what for (key "*"). Correct it and deploy, then: tributary redrive --consumer ${name}.`,
    },
    [`HoldFull-${name}`]: {
      metric: consumerMetric(pipeline, name, "holdFull"),
      threshold: 1,
      periods: 1,
      meaning: `A partition of ${name} holds as much as it may: its shard waits, with all tables in it.`,
      remedy: `Correct what it waits for before the stream's retention is over, then: tributary redrive --consumer ${name}.`,
    },
  };
}

function size(bytes: number): string {
  return bytes % GIB === 0 ? `${bytes / GIB} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}

function hours(milliseconds: number): string {
  return `${Math.round(milliseconds / 360_000) / 10} hours`;
}
