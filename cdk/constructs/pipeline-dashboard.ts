import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import type * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import { Construct } from "constructs";
import type { MetricSet, SourceKind } from "../../lib/source/source-kind.ts";
import type { CaptureService } from "./capture-service.ts";
import type { ChangeStream } from "./change-stream.ts";
import type { Consumer } from "./consumer.ts";
import {
  backfillProgress,
  backfillRates,
  captureMetric,
  consumerMetric,
  iteratorAge,
  oldestSlotLag,
  perSecond,
  redriveMetric,
  streamMetric,
  tableRates,
} from "./metrics.ts";
import type { DatabaseFacts } from "./source-database.ts";

/** What the dashboard shows. */
export interface PipelineDashboardProps {
  readonly pipeline: string;
  readonly source: Pick<SourceKind, "metrics" | "can">;
  readonly database: DatabaseFacts;
  /** One for each slot. */
  readonly captures: readonly CaptureService[];
  readonly changeStream: ChangeStream;
  readonly stateTable: dynamodb.ITable;
  readonly consumers: readonly Consumer[];
  readonly alarms: readonly cloudwatch.Alarm[];
}

/** The grid that CloudWatch lays widgets on. */
const COLUMNS = 24;
const HEIGHT = 6;
const MINUTE = Duration.minutes(1);

/** One question, and the metrics that answer it. */
interface Graph {
  readonly title: string;
  readonly left: cloudwatch.IMetric[];
  readonly right?: cloudwatch.IMetric[];
  readonly unit?: string;
  readonly rightUnit?: string;
}

/**
 * One page that answers "is it healthy, if not where": all alarms at the top, then rows in the order of the way of a change,
 * from PostgreSQL to each consumer.
 */
export class PipelineDashboard extends Construct {
  readonly dashboard: cloudwatch.Dashboard;

  constructor(scope: Construct, id: string, props: PipelineDashboardProps) {
    super(scope, id);
    this.dashboard = new cloudwatch.Dashboard(this, "Dashboard", {
      dashboardName: `${Stack.of(this).stackName}-${props.pipeline}`,
      defaultInterval: Duration.hours(3),
      periodOverride: cloudwatch.PeriodOverride.INHERIT,
    });
    this.dashboard.addWidgets(
      new cloudwatch.AlarmStatusWidget({
        title: `${props.pipeline}: is it healthy?`,
        alarms: [...props.alarms],
        width: COLUMNS,
        // Four alarms a line.
        height: 1 + Math.ceil(props.alarms.length / 4),
      }),
    );
    const { question, graphs } = SOURCE_ROWS[props.source.metrics];
    for (const { slot } of props.captures) {
      const of = slot === 1 ? "" : ` (slot ${slot})`;
      this.#row(`1. PostgreSQL: ${question}${of}`, graphs(props, slot));
    }
    for (const capture of props.captures) {
      const of = capture.slot === 1 ? "" : ` (slot ${capture.slot})`;
      this.#row(`2. Capture: do changes get out?${of}`, captureGraphs(props, capture));
    }
    if (props.source.can.backfill) {
      this.#row("2. Capture: how far are existing rows read (backfill)?", backfillGraphs(props));
    }
    this.#row("3. Kinesis: does the stream keep up?", streamGraphs(props));
    for (const consumer of props.consumers) {
      this.#row(
        `4. Consumer ${consumer.name}: do changes take effect?`,
        consumerGraphs(props.pipeline, consumer),
      );
    }
    this.#row("5. What the consumers stand on", stateGraphs(props));
  }

  #row(heading: string, graphs: readonly Graph[]): void {
    this.dashboard.addWidgets(
      new cloudwatch.TextWidget({
        markdown: `### ${heading}`,
        width: COLUMNS,
        height: 1,
        background: cloudwatch.TextWidgetBackground.TRANSPARENT,
      }),
    );
    const width = Math.floor(COLUMNS / graphs.length);
    this.dashboard.addWidgets(
      ...graphs.map(
        ({ title, left, right, unit, rightUnit }) =>
          new cloudwatch.GraphWidget({
            title,
            left,
            ...(right ? { right } : {}),
            width,
            height: HEIGHT,
            leftYAxis: { min: 0, showUnits: false, ...(unit ? { label: unit } : {}) },
            rightYAxis: { min: 0, showUnits: false, ...(rightUnit ? { label: rightUnit } : {}) },
          }),
      ),
    );
  }
}

/** The row of each set of metrics that a source may have, for each slot. */
const SOURCE_ROWS: Readonly<
  Record<
    MetricSet,
    { readonly question: string; readonly graphs: (props: PipelineDashboardProps, slot: number) => Graph[] }
  >
> = {
  slots: { question: "is its log read, and is there room for it?", graphs: logGraphs },
  tables: { question: "are its tables read?", graphs: tablesGraphs },
};

function tablesGraphs({ pipeline }: PipelineDashboardProps): Graph[] {
  return [
    {
      title: "Age of what waits",
      left: [captureMetric(pipeline, "replicationLagMs", { label: "milliseconds" })],
      unit: "ms",
    },
    {
      title: "Connected (1) or not (0)",
      left: [captureMetric(pipeline, "sourceConnected", { label: "connected" })],
      right: [captureMetric(pipeline, "reconnects", { label: "reconnects" })],
      rightUnit: "count",
    },
    {
      title: "Oldest transaction",
      left: [captureMetric(pipeline, "oldestTransactionSeconds", { label: "oldest transaction" })],
      unit: "s",
    },
  ];
}

function logGraphs({ pipeline, database }: PipelineDashboardProps, slot: number): Graph[] {
  const slotLag = oldestSlotLag(database, { label: "oldest slot (RDS)" });
  return [
    {
      title: "Lag behind PostgreSQL",
      left: [captureMetric(pipeline, "replicationLagBytes", { label: "bytes" }, slot)],
      right: [captureMetric(pipeline, "replicationLagMs", { label: "milliseconds" }, slot)],
      unit: "bytes",
      rightUnit: "ms",
    },
    {
      title: "Slot read by us (1) or not (0)",
      left: [captureMetric(pipeline, "slotActive", { label: "active" }, slot)],
      right: [captureMetric(pipeline, "reconnects", { label: "reconnects" }, slot)],
      rightUnit: "count",
    },
    {
      title: "WAL held for the slot",
      left: [captureMetric(pipeline, "walHeldBytes", { label: "held" }, slot), ...(slotLag ? [slotLag] : [])],
      right: [captureMetric(pipeline, "walBudgetLeft", { label: "budget left %" }, slot)],
      unit: "bytes",
      rightUnit: "%",
    },
    {
      title: "Topics held, and what is stored of them; changes put aside; tables with missing changes",
      left: [
        captureMetric(pipeline, "heldTopics", { label: "topics" }, slot),
        captureMetric(pipeline, "putAside", { label: "put aside" }, slot),
        captureMetric(pipeline, "unhealedTables", { label: "tables" }, slot),
      ],
      right: [captureMetric(pipeline, "heldBytes", { label: "bytes" }, slot)],
      unit: "count",
      rightUnit: "bytes",
    },
    {
      title: "Time until the slot is lost; oldest transaction",
      left: [captureMetric(pipeline, "walLossSeconds", { label: "until lost" }, slot)],
      right: [captureMetric(pipeline, "oldestTransactionSeconds", { label: "oldest transaction" }, slot)],
      unit: "s",
      rightUnit: "s",
    },
  ];
}

function captureGraphs({ pipeline }: PipelineDashboardProps, { service, slot }: CaptureService): Graph[] {
  // By table, whatever its slot: once is enough.
  const tables = slot === 1 ? tableGraphs(pipeline) : [];
  return [
    ...tables,
    {
      title: "Retries, throttles, oversize",
      left: (["retries", "throttles", "oversize"] as const).map((name) =>
        captureMetric(pipeline, name, { label: name }, slot),
      ),
      unit: "count",
    },
    {
      title: "Waiting for Kinesis; the task",
      left: [captureMetric(pipeline, "unacknowledgedMs", { label: "waits, ms" }, slot)],
      right: [
        service.metricCpuUtilization({ period: MINUTE, label: "CPU %" }),
        service.metricMemoryUtilization({ period: MINUTE, label: "memory %" }),
      ],
      unit: "ms",
      rightUnit: "%",
    },
  ];
}

function tableGraphs(pipeline: string): Graph[] {
  return [
    { title: "Changes a second, by table", left: [tableRates(pipeline, "changes")], unit: "a second" },
    { title: "Bytes a second, by table", left: [tableRates(pipeline, "bytes")], unit: "bytes a second" },
  ];
}

function backfillGraphs({ pipeline, captures }: PipelineDashboardProps): Graph[] {
  return [
    { title: "Per cent of the table read, by table", left: [backfillProgress(pipeline)], unit: "%" },
    { title: "Rows a second, by table", left: [backfillRates(pipeline)], unit: "a second" },
    {
      title: "Backfills under way",
      left: captures.map(({ slot }) =>
        captureMetric(pipeline, "backfills", { label: named("under way or paused", slot) }, slot),
      ),
      unit: "count",
    },
  ];
}

/** A label; a further slot's says which it is. */
function named(label: string, slot: number): string {
  return slot === 1 ? label : `${label}, slot ${slot}`;
}

/** The id of a slot's metric in an expression. */
function metricId(name: string, slot: number): string {
  return slot === 1 ? name : `${name}${slot}`;
}

function streamGraphs({ pipeline, captures, changeStream: { stream } }: PipelineDashboardProps): Graph[] {
  const sum = (name: string) => {
    const ids = captures.map(({ slot }) => metricId(name, slot));
    return ids.length === 1 ? name : `(${ids.join(" + ")})`;
  };
  return [
    {
      title: "Written to the stream",
      left: [perSecond(streamMetric(stream, "IncomingBytes", { label: "bytes" }), "bytes a second")],
      right: [perSecond(streamMetric(stream, "IncomingRecords", { label: "records" }), "records a second")],
      unit: "bytes a second",
      rightUnit: "records a second",
    },
    {
      title: "Changes in a record",
      left: [
        new cloudwatch.MathExpression({
          expression: `${sum("changes")} / ${sum("records")}`,
          usingMetrics: Object.fromEntries(
            captures.flatMap(({ slot }) =>
              (["changes", "records"] as const).map((name) => [
                metricId(name, slot),
                captureMetric(pipeline, name, {}, slot),
              ]),
            ),
          ),
          label: "changes in a record",
          period: MINUTE,
        }),
      ],
    },
    {
      title: "Throttled",
      left: [
        streamMetric(stream, "WriteProvisionedThroughputExceeded", { label: "writes" }),
        streamMetric(stream, "ReadProvisionedThroughputExceeded", { label: "reads" }),
      ],
      unit: "count",
    },
  ];
}

function consumerGraphs(pipeline: string, { name, function: handler }: Consumer): Graph[] {
  const latency = (statistic: string) =>
    consumerMetric(pipeline, name, "commitToEffectMs", { statistic, label: statistic });
  const counted = (...names: Parameters<typeof consumerMetric>[2][]) =>
    names.map((metric) => consumerMetric(pipeline, name, metric, { label: metric }));
  return [
    {
      title: "Behind the stream",
      left: [iteratorAge(handler, { label: "iterator age" })],
      unit: "ms",
    },
    {
      title: "Applied a second; duplicates, redriven",
      left: [perSecond(consumerMetric(pipeline, name, "applied"), "applied a second")],
      right: [...counted("duplicates"), redriveMetric(pipeline, name, "redriven", { label: "redriven" })],
      unit: "a second",
      rightUnit: "count",
    },
    { title: "Commit to effect", left: [latency("p50"), latency("p99")], unit: "ms" },
    {
      title: "What fails",
      left: counted("retried", "parked", "deadLettered", "gaps", "held", "heldPartitions"),
      right: [handler.metricErrors({ period: MINUTE, label: "errors" })],
      unit: "count",
    },
  ];
}

function stateGraphs({ consumers, stateTable }: PipelineDashboardProps): Graph[] {
  const tableMetric = (metricName: string, label: string) =>
    new cloudwatch.Metric({
      namespace: "AWS/DynamoDB",
      metricName,
      dimensionsMap: { TableName: stateTable.tableName },
      statistic: cloudwatch.Stats.SUM,
      period: MINUTE,
      label,
    });
  return [
    {
      title: "Dead letters waiting",
      left: consumers.map(({ name, deadLetterQueue }) =>
        deadLetterQueue.queue.metricApproximateNumberOfMessagesVisible({
          statistic: cloudwatch.Stats.MAXIMUM,
          period: MINUTE,
          label: name,
        }),
      ),
      unit: "count",
    },
    {
      title: "Invocation time",
      left: consumers.map(({ name, function: handler }) =>
        handler.metricDuration({ statistic: "p99", period: MINUTE, label: `${name} p99` }),
      ),
      unit: "ms",
    },
    {
      title: "State table",
      left: [
        tableMetric("ConsumedWriteCapacityUnits", "writes"),
        tableMetric("ConsumedReadCapacityUnits", "reads"),
      ],
      right: [
        tableMetric("WriteThrottleEvents", "throttled writes"),
        tableMetric("ReadThrottleEvents", "throttled reads"),
      ],
      unit: "units",
      rightUnit: "count",
    },
  ];
}
