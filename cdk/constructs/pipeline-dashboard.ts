import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import type * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import { Construct } from "constructs";
import { PROGRAM, withCommands } from "../../lib/change/printed-command.ts";
import type { SourceKind } from "../../lib/source/source-kind.ts";
import {
  CAPTURE_GRAPHS,
  type CaptureLine,
  CONSUMER_GRAPHS,
  type ConsumerLine,
  type Graph,
  type Lines,
  SOURCE_ROW,
} from "../../lib/telemetry/graphs.ts";
import type { CAPTURE_METRIC, MeasuredPipeline } from "../../lib/telemetry/metrics.ts";
import type { CaptureService } from "./capture-service.ts";
import type { ChangeStream } from "./change-stream.ts";
import type { Consumer } from "./consumer.ts";
import { type ThresholdLines, thresholdLines, whatToRead } from "./dashboard-alarms.ts";
import {
  backfillProgress,
  backfillRates,
  captureMetric,
  consumerMetric,
  freeStorage,
  iteratorAge,
  metric,
  oldestSlotLag,
  perSecond,
  streamMetric,
  tableRates,
  waitingMessages,
} from "./metrics.ts";
import { inWidgets } from "./pipeline-limits.ts";
import type { DatabaseFacts } from "./source-database.ts";

/** Parts of the pipeline that the dashboard shows. */
export interface PipelineDashboardProps extends MeasuredPipeline {
  readonly source: Pick<SourceKind, "metrics" | "can">;
  readonly database: DatabaseFacts;
  /** One for each slot. */
  readonly captures: readonly CaptureService[];
  readonly changeStream: ChangeStream;
  readonly stateTable: dynamodb.ITable;
  readonly consumers: readonly Consumer[];
  readonly alarms: readonly cloudwatch.Alarm[];
  /** Default: stack, pipeline and region. */
  readonly name?: string | undefined;
  /** Address of the page with an entry of each alarm. */
  readonly runbook: string | undefined;
}

/** The grid that CloudWatch lays widgets on. */
const COLUMNS = 24;
const HEIGHT = 6;
const GRAPHS_IN_A_LINE = 4;
/** https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html: log groups of a query. */
const LOG_GROUPS_IN_A_QUERY = 50;
const MINUTE = Duration.minutes(1);

/** A graph as it is drawn. */
interface DrawnGraph {
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
  #thresholds: ThresholdLines = () => [];

  constructor(scope: Construct, id: string, props: PipelineDashboardProps) {
    super(scope, id);
    this.dashboard = new cloudwatch.Dashboard(this, "Dashboard", {
      dashboardName: props.name ?? dashboardName(this, props.pipeline),
      defaultInterval: Duration.hours(3),
      periodOverride: cloudwatch.PeriodOverride.INHERIT,
    });
    for (const alarms of inWidgets(props.alarms)) {
      this.dashboard.addWidgets(
        new cloudwatch.AlarmStatusWidget({
          title: `${props.pipeline}: is it healthy?`,
          alarms,
          sortBy: cloudwatch.AlarmStatusWidgetSortBy.STATE_UPDATED_TIMESTAMP,
          width: COLUMNS,
          // Four alarms a line.
          height: 1 + Math.ceil(alarms.length / 4),
        }),
      );
    }
    this.dashboard.addWidgets(
      new cloudwatch.TextWidget({
        markdown: whatToRead(this, props.alarms, props.runbook),
        width: COLUMNS,
        height: 3,
      }),
    );
    this.#thresholds = thresholdLines(props.alarms);
    this.dashboard.addWidgets(...singleValues(props));
    const { heading, graphs } = SOURCE_ROW[props.source.metrics];
    for (const capture of props.captures) {
      const of = capture.slot === 1 ? "" : ` (slot ${capture.slot})`;
      this.#row(
        `${heading}${of}`,
        graphs.map((graph) => drawn(graph, captureLine(props, capture))),
      );
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
        CONSUMER_GRAPHS.map((graph) => drawn(graph, consumerLine(props, consumer))),
      );
    }
    this.#row("5. What the consumers stand on", stateGraphs(props));
    this.#heading("6. What went wrong last?");
    this.dashboard.addWidgets(lastErrors(props));
  }

  #heading(text: string): void {
    this.dashboard.addWidgets(
      new cloudwatch.TextWidget({
        markdown: `### ${text}`,
        width: COLUMNS,
        height: 1,
        background: cloudwatch.TextWidgetBackground.TRANSPARENT,
      }),
    );
  }

  #row(heading: string, graphs: readonly DrawnGraph[]): void {
    this.#heading(heading);
    // Lines of about the same length, so that no graph is narrower than a quarter of the page.
    const lines = Math.ceil(graphs.length / GRAPHS_IN_A_LINE);
    const inALine = Math.ceil(graphs.length / lines);
    for (let line = 0; line < lines; line++) this.#line(graphs.slice(line * inALine, (line + 1) * inALine));
  }

  #line(graphs: readonly DrawnGraph[]): void {
    const width = Math.floor(COLUMNS / graphs.length);
    this.dashboard.addWidgets(
      ...graphs.map(
        ({ title, left, right, unit, rightUnit }) =>
          new cloudwatch.GraphWidget({
            title,
            left,
            ...(right ? { right } : {}),
            leftAnnotations: this.#thresholds(left),
            rightAnnotations: this.#thresholds(right ?? []),
            width,
            height: HEIGHT,
            leftYAxis: { min: 0, showUnits: false, ...(unit ? { label: unit } : {}) },
            rightYAxis: { min: 0, showUnits: false, ...(rightUnit ? { label: rightUnit } : {}) },
          }),
      ),
    );
  }
}

/** The few figures that are looked at first, each with its course. */
function singleValues(props: PipelineDashboardProps): cloudwatch.SingleValueWidget[] {
  const { captures, consumers, source } = props;
  const connected = source.metrics === "slots" ? "slotActive" : "sourceConnected";
  const ofCaptures = (name: CaptureLine & keyof typeof CAPTURE_METRIC, label: string) =>
    captures.map(({ slot }) => captureMetric(props, name, { label: named(label, slot) }, slot));
  const widgets: [title: string, metrics: cloudwatch.IMetric[]][] = [
    ["Source is read (1) or not (0)", ofCaptures(connected, "read")],
    ["Capture is behind, ms", ofCaptures("replicationLagMs", "behind")],
    [
      "Consumers are behind, ms",
      consumers.map(({ name }) => consumerMetric(props, name, "lagMs", { label: name })),
    ],
    [
      "Dead letters",
      consumers.map(({ name, deadLetterQueue }) => waitingMessages(deadLetterQueue, { label: name })),
    ],
  ];
  const shown = widgets.filter(([, metrics]) => metrics.length > 0);
  // Two values side by side; one alone needs room for its course too.
  const height = Math.max(3, 1 + 2 * Math.ceil(Math.max(...shown.map(([, metrics]) => metrics.length)) / 2));
  return shown.map(
    ([title, metrics]) =>
      new cloudwatch.SingleValueWidget({
        ...{
          title,
          metrics,
          sparkline: true,
          width: COLUMNS / 4,
          height,
        },
      }),
  );
}

/** The last lines that tell of an error, of capture and of all functions. */
function lastErrors({ captures, consumers }: PipelineDashboardProps): cloudwatch.LogQueryWidget {
  const groups = [
    ...captures.map(({ logGroup }) => logGroup),
    ...consumers.flatMap((consumer) => [consumer.function.logGroup, consumer.redrive.function.logGroup]),
  ];
  return new cloudwatch.LogQueryWidget({
    title: `The last errors: ${withCommands("tributary explain <code>", { program: PROGRAM })} says more`,
    logGroupNames: groups.slice(0, LOG_GROUPS_IN_A_QUERY).map(({ logGroupName }) => logGroupName),
    queryLines: [
      "fields @timestamp, @log, code, coalesce(message, @message) as what",
      'filter level = "ERROR" or @message like /Task timed out|Runtime exited|\\tERROR\\t/',
      "sort @timestamp desc",
      "limit 20",
    ],
    ...{ width: COLUMNS, height: HEIGHT },
  });
}

/** A graph whose lines are found one by one; one that the stack does not have is left out. */
function drawn<M extends string>(
  { left, right, ...rest }: Graph<M>,
  line: (metric: M, label: string) => cloudwatch.IMetric | undefined,
): DrawnGraph {
  const found = (lines: Lines<M>) =>
    (Object.entries(lines) as [M, string][]).flatMap(([metric, label]) => line(metric, label) ?? []);
  return { ...rest, left: found(left), ...(right ? { right: found(right) } : {}) };
}

function captureLine(props: PipelineDashboardProps, { service, slot }: CaptureService) {
  return (metric: CaptureLine, label: string): cloudwatch.IMetric | undefined => {
    if (metric === "oldestSlotLag") return oldestSlotLag(props.database, { label });
    if (metric === "freeStorage") return freeStorage(props.database, { label });
    if (metric === "cpu") return service.metricCpuUtilization({ period: MINUTE, label });
    if (metric === "memory") return service.metricMemoryUtilization({ period: MINUTE, label });
    return captureMetric(props, metric, { label }, slot);
  };
}

function consumerLine(of: MeasuredPipeline, { name, function: handler }: Consumer) {
  const latency = (statistic: string) =>
    consumerMetric(of, name, "commitToEffectMs", { statistic, label: statistic });
  return (metric: ConsumerLine, label: string): cloudwatch.IMetric => {
    if (metric === "iteratorAge") return iteratorAge(handler, { label });
    if (metric === "errors") return handler.metricErrors({ period: MINUTE, label });
    if (metric === "functionThrottles") return handler.metricThrottles({ period: MINUTE, label });
    if (metric === "p50" || metric === "p99") return latency(metric);
    if (metric === "appliedASecond") return perSecond(consumerMetric(of, name, "applied"), label);
    return consumerMetric(of, name, metric, { label });
  };
}

function captureGraphs(props: PipelineDashboardProps, capture: CaptureService): DrawnGraph[] {
  // By table, whatever its slot: once is enough.
  const tables = capture.slot === 1 ? tableGraphs(props) : [];
  return [...tables, ...CAPTURE_GRAPHS.map((graph) => drawn(graph, captureLine(props, capture)))];
}

function tableGraphs(of: MeasuredPipeline): DrawnGraph[] {
  return [
    { title: "Changes a second, by table", left: [tableRates(of, "changes")], unit: "a second" },
    { title: "Bytes a second, by table", left: [tableRates(of, "bytes")], unit: "bytes a second" },
  ];
}

function backfillGraphs(props: PipelineDashboardProps): DrawnGraph[] {
  return [
    { title: "Per cent of the table read, by table", left: [backfillProgress(props)], unit: "%" },
    { title: "Rows a second, by table", left: [backfillRates(props)], unit: "a second" },
    {
      title: "Backfills under way; rows to be read again",
      left: props.captures.map(({ slot }) =>
        captureMetric(props, "backfills", { label: named("under way or paused", slot) }, slot),
      ),
      right: props.captures.map(({ slot }) =>
        captureMetric(props, "rowsAsked", { label: named("rows", slot) }, slot),
      ),
      rightUnit: "count",
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

function streamGraphs(props: PipelineDashboardProps): DrawnGraph[] {
  const { captures, changeStream } = props;
  const { stream } = changeStream;
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
                captureMetric(props, name, {}, slot),
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

function stateGraphs({ consumers, stateTable }: PipelineDashboardProps): DrawnGraph[] {
  const { tableName: TableName } = stateTable;
  const tableMetric = (name: string, label: string) =>
    metric("AWS/DynamoDB", name, { TableName }, cloudwatch.Stats.SUM, { label });
  return [
    {
      title: "Dead letters waiting",
      left: consumers.map(({ name, deadLetterQueue }) => waitingMessages(deadLetterQueue, { label: name })),
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

/**
 * An account's dashboards are not of a region, and one that has the name of another takes its place: stacks of one name in two regions would
 * share a dashboard. https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
 */
function dashboardName(scope: Construct, pipeline: string): string {
  const { stackName, region } = Stack.of(scope);
  return `${stackName}-${pipeline}-${region}`;
}
