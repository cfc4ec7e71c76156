import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import { SnsAction } from "aws-cdk-lib/aws-cloudwatch-actions";
import * as logs from "aws-cdk-lib/aws-logs";
import type * as sns from "aws-cdk-lib/aws-sns";
import { Construct } from "constructs";
import { PROGRAM, withCommands } from "../../lib/change/printed-command.ts";
import type { SourceKind } from "../../lib/source/source-kind.ts";
import {
  type Alarm,
  CAPTURE_ALARM,
  type CaptureAlarmMetric,
  CONSUMER_ALARM,
  type ConsumerAlarmMetric,
  PERIODS,
  PIPELINE_ALARM,
  SOURCE_ALARM,
  THRESHOLD,
  type ThresholdName,
} from "../../lib/telemetry/alarms.ts";
import { CAPTURE_STARTS_LINE } from "../../lib/telemetry/log.ts";
import { METRICS_NAMESPACE } from "../../lib/telemetry/metrics.ts";
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
  waitingMessages,
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

/** Parts of the pipeline that alarms watch, and the topic that alarms go to. */
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

/**
 * The alarms of a pipeline. Those of the capture task ring when they get no data: a dead task says nothing. Each says in
 * its description what it means and what to do.
 */
export class PipelineAlarms extends Construct {
  readonly alarms: cloudwatch.Alarm[] = [];

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
    const ofCapture = (alarms: Readonly<Record<string, Alarm<CaptureAlarmMetric>>>) => {
      for (const { slot } of props.captures) {
        for (const [name, alarm] of Object.entries(alarms)) {
          const meaning = slot === 1 ? alarm.meaning : `Slot ${slot}: ${alarm.meaning}`;
          const metric = captureAlarmMetric(props.pipeline, alarm.metric, slot);
          this.#alarm(named(name, slot), { ...alarm, meaning }, metric, props, { kind: name });
        }
      }
    };
    ofCapture(SOURCE_ALARM[props.source.metrics]);
    this.#ofPipeline(props);
    ofCapture(CAPTURE_ALARM);
    this.#alarm("ReadThrottled", PIPELINE_ALARM.ReadThrottled, readThrottled(props), props);
    for (const consumer of props.consumers) {
      for (const [name, alarm] of Object.entries<Alarm<ConsumerAlarmMetric>>(CONSUMER_ALARM)) {
        const metric = consumerAlarmMetric(props.pipeline, alarm.metric, consumer);
        this.#alarm(`${name}-${consumer.name}`, alarm, metric, props, {
          kind: name,
          consumer: consumer.name,
        });
      }
    }
  }

  /** Makes the alarms of the pipeline as a whole, for those resources that the stack has. */
  #ofPipeline(props: PipelineAlarmsProps): void {
    const { captureDeadLetters, database, source } = props;
    if (captureDeadLetters) {
      this.#alarm("PutAside", PIPELINE_ALARM.PutAside, waitingMessages(captureDeadLetters), props);
    }
    const slotLag = source.metrics === "slots" ? oldestSlotLag(database) : undefined;
    if (slotLag) {
      const { missing, ...alarm } = PIPELINE_ALARM.OldestReplicationSlotLag;
      // Every RDS instance of PostgreSQL publishes it; Aurora may not.
      const known = database.metricsDimension?.DBInstanceIdentifier ? { missing } : {};
      this.#alarm("OldestReplicationSlotLag", { ...alarm, ...known }, slotLag, props);
    }
  }

  #alarm(
    name: string,
    alarm: Alarm,
    metric: cloudwatch.IMetric,
    props: PipelineAlarmsProps,
    { kind = name, consumer = "" }: { readonly kind?: string; readonly consumer?: string } = {},
  ): void {
    const { pipeline, topic } = props;
    const { value, text } = thresholdOf(alarm.threshold, props);
    const place = { program: PROGRAM, stack: Stack.of(this).stackName };
    const describe = (what: string) =>
      withCommands(what.replaceAll("{threshold}", text).replaceAll("{consumer}", consumer), place);
    const made = new cloudwatch.Alarm(this, name, {
      // Read in a mail and on the dashboard; the stack's name keeps two stacks of one account apart.
      alarmName: `${Stack.of(this).stackName}/${pipeline}: ${name}`,
      metric,
      threshold: value,
      comparisonOperator: alarm.below
        ? cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
        : cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      evaluationPeriods: alarm.periods ?? PERIODS,
      treatMissingData:
        alarm.missing === "dead"
          ? cloudwatch.TreatMissingData.BREACHING
          : cloudwatch.TreatMissingData.NOT_BREACHING,
      alarmDescription: `${describe(alarm.meaning)} What to do: ${describe(alarm.remedy)} More: ${describe(`tributary explain ${kind}`)}`,
    });
    if (topic) {
      made.addAlarmAction(new SnsAction(topic));
      made.addOkAction(new SnsAction(topic));
    }
    this.alarms.push(made);
  }
}

/** The name of what there is once for each slot: that of the first slot is what it was without others. */
function named(name: string, slot: number): string {
  return slot === 1 ? name : `${name}-slot${slot}`;
}

function captureAlarmMetric(pipeline: string, name: CaptureAlarmMetric, slot: number): cloudwatch.IMetric {
  return name === "captureStarts" ? captureStarts(pipeline, slot) : captureMetric(pipeline, name, {}, slot);
}

function consumerAlarmMetric(
  pipeline: string,
  name: ConsumerAlarmMetric,
  { name: consumer, function: handler, deadLetterQueue }: Consumer,
): cloudwatch.IMetric {
  if (name === "iteratorAge") return iteratorAge(handler);
  if (name === "deadLetters") return waitingMessages(deadLetterQueue);
  if (name === "errors") return handler.metricErrors({ period: Duration.minutes(1) });
  return consumerMetric(pipeline, consumer, name);
}

function readThrottled({ changeStream }: PipelineAlarmsProps): cloudwatch.IMetric {
  return streamMetric(changeStream.stream, "ReadProvisionedThroughputExceeded");
}

/** From when on an alarm rings in this stack: in the metric's unit, and in words. */
function thresholdOf(
  threshold: number | ThresholdName,
  { thresholds, changeStream }: PipelineAlarmsProps,
): { readonly value: number; readonly text: string } {
  if (typeof threshold === "number") return { value: threshold, text: String(threshold) };
  if (threshold === "iteratorAge") {
    const share = changeStream.retention.toSeconds() * THRESHOLD.iteratorAge.value;
    const value = thresholds.iteratorAge?.toMilliseconds() ?? share;
    return { value, text: hours(value) };
  }
  const chosen = thresholds[threshold];
  if (chosen === undefined) return THRESHOLD[threshold];
  if (typeof chosen === "number") {
    return { value: chosen, text: threshold === "lagBytes" ? size(chosen) : String(chosen) };
  }
  const value = threshold === "lag" ? chosen.toMilliseconds() : chosen.toSeconds();
  return { value, text: chosen.toHumanString() };
}

function size(bytes: number): string {
  const gib = 1024 ** 3;
  return bytes % gib === 0 ? `${bytes / gib} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}

function hours(milliseconds: number): string {
  return `${Math.round(milliseconds / 360_000) / 10} hours`;
}
