import { Metrics } from "@aws-lambda-powertools/metrics";
import { METRICS_NAMESPACE, type MetricName } from "./metric-names.ts";

/** A metric and what was measured: one value, or several of one period; undefined where nothing is known. */
export type Measurement = readonly [metric: MetricName, value: number | readonly number[] | undefined];

/** CloudWatch takes 100 values of a metric in a line; at that many Powertools would write the line by itself. */
const MAX_VALUES = 99;

/**
 * A line that CloudWatch takes metrics from (embedded metric format), begun with what the local host reads: which kind of
 * line it is, and plain fields. Metrics that nothing is known of are left out.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */
export function metricsLine(
  kind: string,
  dimensions: Readonly<Record<string, string>>,
  measurements: readonly Measurement[],
  fields: Readonly<Record<string, unknown>> = {},
): string {
  const metrics = new Metrics({ namespace: METRICS_NAMESPACE });
  // Powertools would add a dimension `service`.
  metrics.clearDefaultDimensions();
  metrics.setDefaultDimensions({ ...dimensions });
  for (const [{ name, unit }, value] of measurements) {
    const values = typeof value === "number" ? [value] : (value ?? []);
    for (const one of values.slice(-MAX_VALUES)) metrics.addMetric(name, unit, one);
  }
  return JSON.stringify({ tributary: kind, ...fields, ...metrics.serializeMetrics() });
}
