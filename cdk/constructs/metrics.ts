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
  dimensionsOf,
  METRICS_NAMESPACE,
  type MeasuredPipeline,
  type Metric,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
  TABLE_METRIC,
} from "../../lib/telemetry/metrics.ts";
import type { DatabaseFacts } from "./source-database.ts";

/*
 * Metrics, apart from what draws them and what alarms on them.
 */

const MINUTE = Duration.minutes(1);
const OF_CONSUMER = { ...CONSUMER_METRIC, ...REDRIVE_METRIC, ...PAUSE_METRIC, ...STANDING_METRIC };

/** Options of a metric. Alarms give no label: CloudFormation would make an expression of it. */
type MetricChoice = Pick<cloudwatch.MetricOptions, "label" | "period" | "statistic">;

/** A metric that the capture task publishes; `slot`: the number of its slot, where the pipeline has several. */
export function captureMetric(
  of: MeasuredPipeline,
  name: keyof typeof CAPTURE_METRIC,
  choice: MetricChoice,
  slot: number,
): cloudwatch.Metric {
  const further: Record<string, string> = slot > 1 ? { [DIMENSION.slot]: String(slot) } : {};
  return ours(CAPTURE_METRIC[name], dimensionsOf(of, further), choice);
}

/** A metric that a consumer or its redrive publishes. */
export function consumerMetric(
  of: MeasuredPipeline,
  consumer: string,
  name: keyof typeof OF_CONSUMER,
  choice?: MetricChoice,
): cloudwatch.Metric {
  return ours(OF_CONSUMER[name], dimensionsOf(of, { [DIMENSION.consumer]: consumer }), choice);
}

/** A metric of the busiest tables, one line for each, a second. */
export function tableRates(of: MeasuredPipeline, name: keyof typeof TABLE_METRIC): cloudwatch.MathExpression {
  return ofTables(rates(of, TABLE_METRIC[name]));
}

/** Rows that backfills read, one line for each table, a second. */
export function backfillRates(of: MeasuredPipeline): cloudwatch.MathExpression {
  return ofTables(rates(of, BACKFILL_METRIC.rows));
}

/** Progress of backfills, one line for each table. */
export function backfillProgress(of: MeasuredPipeline): cloudwatch.MathExpression {
  return ofTables(searchTables(of, BACKFILL_METRIC.percent));
}

function rates(of: MeasuredPipeline, metric: Metric): string {
  // PERIOD takes a metric, not what a search finds; the search says its period itself.
  return `${searchTables(of, metric)} / ${MINUTE.toSeconds()}`;
}

function searchTables(of: MeasuredPipeline, { name, statistic }: Metric): string {
  const known = Object.entries(dimensionsOf(of));
  const schema = [METRICS_NAMESPACE, ...known.map(([dimension]) => dimension), DIMENSION.table].join(",");
  const wanted = [["MetricName", name], ...known].map(([what, value]) => `${what}="${value}"`).join(" ");
  return `SEARCH('{${schema}} ${wanted}', '${statistic}', ${MINUTE.toSeconds()})`;
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
export function iteratorAge(handler: lambda.IFunction, choice?: MetricChoice): cloudwatch.Metric {
  const { functionName: FunctionName } = handler;
  return metric("AWS/Lambda", "IteratorAge", { FunctionName }, cloudwatch.Stats.MAXIMUM, choice);
}

/** The part of `Consumer` that its mapping's metrics are found by. */
interface MappedConsumer {
  readonly name: string;
  readonly mapping: lambda.IEventSourceMapping;
}

/**
 * 1 where records came into the stream and none of them was polled for a consumer, which capture knows and which is not paused; else 0. The event source mapping
 * publishes `PolledEventCount` (0 for an empty poll, before any filter, and nothing while it does not poll) since its `MetricsConfig` says so:
 * https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html#event-source-mapping-metrics
 */
export function unreadRecords(
  of: MeasuredPipeline,
  stream: kinesis.IStream,
  { name, mapping }: MappedConsumer,
): cloudwatch.MathExpression {
  const period = Duration.minutes(5);
  const EventSourceMappingUUID = mapping.eventSourceMappingId;
  return new cloudwatch.MathExpression({
    // A paused consumer is not polled for: PauseRetention watches it. A new alarm looks back an hour, in which a consumer that is new, too,
    // had no mapping: what capture tells of it (`known`) begins behind the deploy.
    expression:
      "IF(FILL(incoming, 0) > 0 AND FILL(polled, 0) == 0 AND FILL(paused, -1) < 0 AND FILL(known, -1) >= 0, 1, 0)",
    usingMetrics: {
      incoming: streamMetric(stream, "IncomingRecords", { period }),
      polled: metric("AWS/Lambda", "PolledEventCount", { EventSourceMappingUUID }, cloudwatch.Stats.SUM, {
        period,
      }),
      paused: consumerMetric(of, name, "retentionUsed", { period }),
      known: consumerMetric(of, name, "openHolds", { period }),
    },
    period,
  });
}

/** Messages of a dead-letter queue that wait. */
export function waitingMessages(
  { queue }: { readonly queue: sqs.IQueue },
  choice?: MetricChoice,
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
  choice?: MetricChoice,
): cloudwatch.Metric {
  return metric("AWS/Kinesis", metricName, { StreamName: stream.streamName }, cloudwatch.Stats.SUM, choice);
}

/**
 * Lag of the oldest slot of the server, by RDS itself: it tells when nobody of ours does any more. Undefined for a
 * server outside of RDS. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
 */
export function oldestSlotLag(
  { metricsDimension }: DatabaseFacts,
  choice?: MetricChoice,
): cloudwatch.Metric | undefined {
  if (!metricsDimension) return undefined;
  const { MAXIMUM } = cloudwatch.Stats;
  return metric("AWS/RDS", "OldestReplicationSlotLag", { ...metricsDimension }, MAXIMUM, choice);
}

/**
 * Free storage of an instance of RDS; undefined for others: a cluster's volume grows by itself.
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
 */
export function freeStorage(
  { metricsDimension }: DatabaseFacts,
  choice?: MetricChoice,
): cloudwatch.Metric | undefined {
  if (!metricsDimension?.DBInstanceIdentifier) return undefined;
  return metric("AWS/RDS", "FreeStorageSpace", { ...metricsDimension }, cloudwatch.Stats.MINIMUM, choice);
}

/** Starts of the capture task, counted in its log: also those of a task that fails before it measures anything. */
export function captureStarts(of: MeasuredPipeline, slot: number): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace: METRICS_NAMESPACE,
    metricName: captureStartsName(of, slot),
    statistic: cloudwatch.Stats.SUM,
    period: Duration.minutes(15),
  });
}

/**
 * A metric filter with a value for "none" takes no dimensions: stage, pipeline and further slot are in the name.
 * https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_MetricTransformation.html
 */
export function captureStartsName({ stage, pipeline }: MeasuredPipeline, slot: number): string {
  return ["CaptureStarts", stage, pipeline, ...(slot > 1 ? [`slot${slot}`] : [])].join("/");
}

function ours(
  { name, statistic }: Metric,
  dimensions: Record<string, string>,
  choice?: MetricChoice,
): cloudwatch.Metric {
  return metric(METRICS_NAMESPACE, name, dimensions, statistic, choice);
}

/** Any metric of CloudWatch, a minute a point. */
export function metric(
  namespace: string,
  metricName: string,
  dimensionsMap: Record<string, string>,
  statistic: string,
  choice?: MetricChoice,
): cloudwatch.Metric {
  return new cloudwatch.Metric({
    namespace,
    metricName,
    dimensionsMap,
    statistic,
    period: MINUTE,
    ...choice,
  });
}
