import { Duration } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import type * as kinesis from "aws-cdk-lib/aws-kinesis";
import type * as lambda from "aws-cdk-lib/aws-lambda";
import type * as sqs from "aws-cdk-lib/aws-sqs";
import {
  BACKFILL_METRIC,
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  DIMENSION,
  METRICS_NAMESPACE,
  type Metric,
  REDRIVE_METRIC,
  TABLE_METRIC,
} from "../../lib/telemetry/metrics.ts";
import type { DatabaseFacts } from "./source-database.ts";

/*
 * Metrics, apart from what draws them and what alarms on them.
 */

const MINUTE = Duration.minutes(1);

/** What may be said otherwise about a metric. Alarms give no label: CloudFormation would make an expression of it. */
type MetricChoice = Pick<cloudwatch.MetricOptions, "label" | "period" | "statistic">;

/** A metric that the capture task publishes; `slot`: the number of its slot, where the pipeline has several. */
export function captureMetric(
  pipeline: string,
  name: keyof typeof CAPTURE_METRIC,
  choice: MetricChoice = {},
  slot = 1,
): cloudwatch.Metric {
  const further = slot > 1 && { [DIMENSION.slot]: String(slot) };
  return ours(CAPTURE_METRIC[name], { [DIMENSION.pipeline]: pipeline, ...further }, choice);
}

/** A metric that a consumer publishes. */
export function consumerMetric(
  pipeline: string,
  consumer: string,
  name: keyof typeof CONSUMER_METRIC,
  choice: MetricChoice = {},
): cloudwatch.Metric {
  return ours(
    CONSUMER_METRIC[name],
    { [DIMENSION.pipeline]: pipeline, [DIMENSION.consumer]: consumer },
    choice,
  );
}

/** A metric that a consumer's redrive publishes. */
export function redriveMetric(
  pipeline: string,
  consumer: string,
  name: keyof typeof REDRIVE_METRIC,
  choice: MetricChoice = {},
): cloudwatch.Metric {
  return ours(
    REDRIVE_METRIC[name],
    { [DIMENSION.pipeline]: pipeline, [DIMENSION.consumer]: consumer },
    choice,
  );
}

/** A metric of the busiest tables, one line for each, a second. */
export function tableRates(pipeline: string, name: keyof typeof TABLE_METRIC): cloudwatch.MathExpression {
  return ofTables(rates(pipeline, TABLE_METRIC[name]));
}

/** Rows that backfills read, one line for each table, a second. */
export function backfillRates(pipeline: string): cloudwatch.MathExpression {
  return ofTables(rates(pipeline, BACKFILL_METRIC.rows));
}

/** How far backfills are, one line for each table. */
export function backfillProgress(pipeline: string): cloudwatch.MathExpression {
  return ofTables(searchTables(pipeline, BACKFILL_METRIC.percent));
}

function rates(pipeline: string, metric: Metric): string {
  // PERIOD takes a metric, not what a search finds; the search says its period itself.
  return `${searchTables(pipeline, metric)} / ${MINUTE.toSeconds()}`;
}

function searchTables(pipeline: string, { name, statistic }: Metric): string {
  const { pipeline: p, table: t } = DIMENSION;
  const schema = `{${METRICS_NAMESPACE},${p},${t}} MetricName="${name}" ${p}="${pipeline}"`;
  return `SEARCH('${schema}', '${statistic}', ${MINUTE.toSeconds()})`;
}

function ofTables(expression: string): cloudwatch.MathExpression {
  return new cloudwatch.MathExpression({ expression, label: "", period: MINUTE, usingMetrics: {} });
}

/** A counter as a rate a second. */
export function perSecond(metric: cloudwatch.Metric, label: string): cloudwatch.MathExpression {
  // Ids within a graph must differ, and begin with a small letter.
  const id = `each${metric.metricName}`;
  return new cloudwatch.MathExpression({
    expression: `${id} / PERIOD(${id})`,
    usingMetrics: { [id]: metric },
    label,
    period: MINUTE,
  });
}

/** Age of the last record that a consumer's function was given, at its start. */
export function iteratorAge(handler: lambda.IFunction, choice: MetricChoice = {}): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace: "AWS/Lambda",
    metricName: "IteratorAge",
    dimensionsMap: { FunctionName: handler.functionName },
    statistic: cloudwatch.Stats.MAXIMUM,
    period: MINUTE,
    ...choice,
  });
}

/** Messages of a dead-letter queue that wait. */
export function waitingMessages(
  { queue }: { readonly queue: sqs.IQueue },
  choice: MetricChoice = {},
): cloudwatch.Metric {
  return queue.metricApproximateNumberOfMessagesVisible({
    statistic: cloudwatch.Stats.MAXIMUM,
    period: MINUTE,
    ...choice,
  });
}

/** One of Kinesis's own metrics: https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html */
export function streamMetric(
  stream: kinesis.IStream,
  metricName:
    | "IncomingBytes"
    | "IncomingRecords"
    | "WriteProvisionedThroughputExceeded"
    | "ReadProvisionedThroughputExceeded",
  choice: MetricChoice = {},
): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace: "AWS/Kinesis",
    metricName,
    dimensionsMap: { StreamName: stream.streamName },
    statistic: cloudwatch.Stats.SUM,
    period: MINUTE,
    ...choice,
  });
}

/**
 * How far the oldest slot of the server lags, by RDS itself: it tells when nobody of ours does any more. Undefined for a
 * server outside of RDS. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
 */
export function oldestSlotLag(
  database: DatabaseFacts,
  choice: MetricChoice = {},
): cloudwatch.Metric | undefined {
  if (!database.metricsDimension) return undefined;
  return new cloudwatch.Metric({
    namespace: "AWS/RDS",
    metricName: "OldestReplicationSlotLag",
    dimensionsMap: { ...database.metricsDimension },
    statistic: cloudwatch.Stats.MAXIMUM,
    period: MINUTE,
    ...choice,
  });
}

/** Starts of the capture task, counted in its log: also those of a task that fails before it measures anything. */
export function captureStarts(pipeline: string, slot = 1): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace: METRICS_NAMESPACE,
    metricName: captureStartsName(pipeline, slot),
    statistic: cloudwatch.Stats.SUM,
    period: Duration.minutes(15),
  });
}

/** A metric filter with a value for "none" takes no dimensions: pipeline and further slot are in the name. */
export function captureStartsName(pipeline: string, slot = 1): string {
  return `CaptureStarts-${pipeline}${slot > 1 ? `-slot${slot}` : ""}`;
}

function ours(
  { name, statistic }: Metric,
  dimensionsMap: Record<string, string>,
  choice: MetricChoice,
): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace: METRICS_NAMESPACE,
    metricName: name,
    dimensionsMap,
    statistic,
    period: MINUTE,
    ...choice,
  });
}
