import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import * as logs from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import { PROGRAM, withCommands } from "../../lib/change/printed-command.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import type { SourceKind } from "../../lib/source/source-kind.ts";
import {
  type Alarm,
  CAPTURE_ALARM,
  type CaptureAlarmMetric,
  CONSUMER_ALARM,
  type ConsumerAlarmMetric,
  PERIODS,
  PIPELINE_ALARM,
  PIPELINE_COMPOSITE,
  SOURCE_ALARM,
  THRESHOLD,
  type ThresholdName,
} from "../../lib/telemetry/alarms.ts";
import { CAPTURE_STARTS_LINE } from "../../lib/telemetry/log.ts";
import { METRICS_NAMESPACE, type MeasuredPipeline } from "../../lib/telemetry/metrics.ts";
import { type AlarmTopics, FollowerAlarm, HealthAlarm, type NamedAlarm, notify } from "./alarm-actions.ts";
import { type AlarmSetting, type AlarmThresholds, alarmSetting, checkAlarms } from "./alarm-settings.ts";
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
  unreadRecords,
  waitingMessages,
} from "./metrics.ts";
import { checkDescription, entryOf } from "./runbook.ts";
import type { DatabaseFacts } from "./source-database.ts";

/** Parts of the pipeline that alarms watch, and the topics that alarms go to. */
export interface PipelineAlarmsProps extends MeasuredPipeline {
  readonly source: Pick<SourceKind, "metrics">;
  /** One for each slot. */
  readonly captures: readonly CaptureService[];
  readonly changeStream: ChangeStream;
  readonly consumers: readonly Consumer[];
  readonly captureDeadLetters: DeadLetterQueue | undefined;
  readonly database: DatabaseFacts;
  readonly thresholds: AlarmThresholds;
  readonly topics: AlarmTopics;
  /** Address of the page with an entry of each alarm. */
  readonly runbook: string | undefined;
}

/** An alarm as it was made. */
interface MadeAlarm extends NamedAlarm {
  readonly of: Alarm;
  readonly kind: string;
  /** The rest of its name: `-slot2`, or a consumer's. */
  readonly suffix: string;
}

/**
 * The alarms of a pipeline. A dead task says nothing: one alarm rings when it gets no data, the others leave that to it. Each says in
 * its description what it means and what to do, and notifies the topic of its severity; one that another explains does not while that
 * one rings. `health` sums up those that call somebody.
 */
export class PipelineAlarms extends Construct {
  readonly alarms: cloudwatch.Alarm[] = [];
  readonly health: cloudwatch.CompositeAlarm;
  readonly #made: MadeAlarm[] = [];

  constructor(scope: Construct, id: string, props: PipelineAlarmsProps) {
    super(scope, id);
    checkAlarms(props.thresholds, [
      ...props.captures.filter(({ slot }) => slot !== 1).map(({ slot }) => named("", slot)),
      ...props.consumers.map(({ name }) => `-${name}`),
    ]);
    for (const { logGroup, slot } of props.captures) {
      new logs.MetricFilter(this, named("CaptureStarts", slot), {
        logGroup,
        filterPattern: logs.FilterPattern.stringValue("$.message", "=", CAPTURE_STARTS_LINE),
        metricNamespace: METRICS_NAMESPACE,
        metricName: captureStartsName(props, slot),
        metricValue: "1",
        // With every line of the log: no data means no task.
        defaultValue: 0,
      });
    }
    const ofCapture = (alarms: Readonly<Record<string, Alarm<CaptureAlarmMetric>>>) => {
      for (const { slot } of props.captures) {
        for (const [name, alarm] of Object.entries(alarms)) {
          const meaning = slot === 1 ? alarm.meaning : `Slot ${slot}: ${alarm.meaning}`;
          const metric = captureAlarmMetric(props, alarm.metric, slot);
          const suffix = named("", slot);
          const made = this.#alarm(name + suffix, { ...alarm, meaning }, metric, props, {
            kind: name,
            suffix,
          });
          // A task that is not made yet is not dead: from its start on there is something to be read.
          if (alarm.missing === "dead")
            made?.node.addDependency(...props.captures.map(({ service }) => service));
        }
      }
    };
    ofCapture(SOURCE_ALARM[props.source.metrics]);
    this.#ofPipeline(props);
    ofCapture(CAPTURE_ALARM);
    this.#alarm("ReadThrottled", PIPELINE_ALARM.ReadThrottled, readThrottled(props), props);
    for (const consumer of props.consumers) {
      for (const [name, alarm] of Object.entries<Alarm<ConsumerAlarmMetric>>(CONSUMER_ALARM)) {
        const metric = consumerAlarmMetric(props, alarm.metric, consumer);
        const suffix = `-${consumer.name}`;
        this.#alarm(name + suffix, alarm, metric, props, { kind: name, suffix, consumer: consumer.name });
      }
    }
    this.#notify(props.topics);
    this.health = this.#healthOf(props);
  }

  /** Has each alarm notify the topic of its severity, if there is one. */
  #notify(topics: AlarmTopics): void {
    for (const made of this.#made) {
      const { of, suffix, kind } = made;
      const topic = topics[of.severity];
      if (!topic) continue;
      const causes = this.#made.filter((other) => of.unless?.includes(other.kind) && other.suffix === suffix);
      if (causes.length === 0) notify(made.alarm, topic);
      else new FollowerAlarm(this, `${kind}${suffix}-alone`, { follower: made, causes, topic });
    }
  }

  #healthOf(props: PipelineAlarmsProps): cloudwatch.CompositeAlarm {
    const [[kind, texts]] = Object.entries(PIPELINE_COMPOSITE) as [
      [string, typeof PIPELINE_COMPOSITE.Unhealthy],
    ];
    const children = this.#made.filter(({ of }) => of.severity === "page");
    if (children.length === 0) {
      const remedy =
        "leave one alarm of severity page on at least (SlotInactive, Unread): the pipeline's health is made of them";
      throw new ConfigurationError("CdcPipeline", [
        { path: "alarms.byName", value: props.thresholds.byName, remedy },
      ]);
    }
    return new HealthAlarm(this, kind, {
      alarmName: this.#nameOf(kind, props),
      description: this.#describe(kind, texts, (text) => text, props),
      children,
    }).alarm;
  }

  /** Read in a mail and on the dashboard; the stack's name keeps two stacks of one account apart. */
  #nameOf(name: string, { pipeline }: PipelineAlarmsProps): string {
    return `${Stack.of(this).stackName}/${pipeline}: ${name}`;
  }

  #describe(
    kind: string,
    { meaning, remedy }: Pick<Alarm, "meaning" | "remedy">,
    fill: (text: string) => string,
    { runbook }: PipelineAlarmsProps,
    own = "",
  ): string {
    const place = { program: PROGRAM, stack: Stack.of(this).stackName };
    const describe = (text: string) => withCommands(fill(text), place);
    const more = runbook === undefined ? describe(`tributary explain ${kind}`) : entryOf(runbook, kind);
    const description = `${describe(meaning)}${own} What to do: ${describe(remedy)} More: ${more}`;
    checkDescription(description, kind, runbook);
    return description;
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
    listed: Alarm,
    metric: cloudwatch.IMetric,
    props: PipelineAlarmsProps,
    {
      kind = name,
      suffix = "",
      consumer = "",
    }: { readonly kind?: string; readonly suffix?: string; readonly consumer?: string } = {},
  ): cloudwatch.Alarm | undefined {
    const setting = alarmSetting(props.thresholds, kind, suffix);
    if (setting === false) return undefined;
    const { threshold: chosen, ...over } = setting;
    const alarm: Alarm = { ...listed, ...over };
    const { value, text } = thresholdOf(alarm.threshold, props, chosen);
    const fill = (what: string) => what.replaceAll("{threshold}", text).replaceAll("{consumer}", consumer);
    const alarmName = this.#nameOf(name, props);
    const periods = alarm.periods ?? PERIODS;
    const description = this.#describe(kind, alarm, fill, props, said(setting, text));
    const made = new cloudwatch.Alarm(this, name, {
      ...{ alarmName, alarmDescription: description, metric, threshold: value },
      comparisonOperator: alarm.below
        ? cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
        : cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      evaluationPeriods: alarm.outOf ?? periods,
      ...(alarm.outOf && { datapointsToAlarm: periods }),
      treatMissingData: MISSING[alarm.missing ?? "fine"],
    });
    this.#made.push({ alarm: made, alarmName, description, of: alarm, kind, suffix });
    this.alarms.push(made);
    return made;
  }
}

const MISSING = {
  dead: cloudwatch.TreatMissingData.BREACHING,
  // Nobody looked: what was open then still is, as far as anybody knows.
  keep: cloudwatch.TreatMissingData.IGNORE,
  fine: cloudwatch.TreatMissingData.NOT_BREACHING,
};

/** The name of what there is once for each slot: that of the first slot is what it was without others. */
function named(name: string, slot: number): string {
  return slot === 1 ? name : `${name}-slot${slot}`;
}

function captureAlarmMetric(
  of: MeasuredPipeline,
  name: CaptureAlarmMetric,
  slot: number,
): cloudwatch.IMetric {
  return name === "captureStarts" ? captureStarts(of, slot) : captureMetric(of, name, {}, slot);
}

function consumerAlarmMetric(
  props: PipelineAlarmsProps,
  name: ConsumerAlarmMetric,
  consumer: Consumer,
): cloudwatch.IMetric {
  const { function: handler, deadLetterQueue } = consumer;
  if (name === "iteratorAge") return iteratorAge(handler);
  if (name === "deadLetters") return waitingMessages(deadLetterQueue);
  if (name === "errors") return handler.metricErrors({ period: Duration.minutes(1) });
  if (name === "functionThrottles") return handler.metricThrottles({ period: Duration.minutes(1) });
  if (name === "unread") return unreadRecords(props, props.changeStream.stream, consumer);
  return consumerMetric(props, consumer.name, name);
}

function readThrottled({ changeStream }: PipelineAlarmsProps): cloudwatch.IMetric {
  return streamMetric(changeStream.stream, "ReadProvisionedThroughputExceeded");
}

const IN_MILLISECONDS: ReadonlySet<ThresholdName> = new Set(["lag", "freshness"]);

/** From when on an alarm rings in this stack: in the metric's unit, and in words. */
function thresholdOf(
  threshold: number | ThresholdName,
  { thresholds, changeStream }: PipelineAlarmsProps,
  own: number | Duration | undefined,
): { readonly value: number; readonly text: string } {
  if (typeof threshold === "number") {
    const value = typeof own === "number" ? own : threshold;
    return { value, text: String(value) };
  }
  const chosen = own ?? thresholds[threshold];
  if (threshold === "iteratorAge") {
    const share = changeStream.retention.toSeconds() * THRESHOLD.iteratorAge.value;
    const value = chosen instanceof Duration ? chosen.toMilliseconds() : share;
    return { value, text: hours(value) };
  }
  if (chosen === undefined) return THRESHOLD[threshold];
  if (typeof chosen === "number") {
    return { value: chosen, text: threshold === "lagBytes" ? size(chosen) : String(chosen) };
  }
  const value = IN_MILLISECONDS.has(threshold) ? chosen.toMilliseconds() : chosen.toSeconds();
  return { value, text: chosen.toHumanString() };
}

/** Tells in a description what of the alarm is the stack's own choice: its texts are written for what is listed. */
function said({ threshold, periods }: AlarmSetting, text: string): string {
  const own = [
    ...(threshold === undefined ? [] : [`at ${text}`]),
    ...(periods === undefined ? [] : [`after ${periods} periods`]),
  ];
  return own.length === 0 ? "" : ` (This stack's choice: ${own.join(", ")}.)`;
}

function size(bytes: number): string {
  const gib = 1024 ** 3;
  return bytes % gib === 0 ? `${bytes / gib} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}

function hours(milliseconds: number): string {
  return `${Math.round(milliseconds / 360_000) / 10} hours`;
}
