import { METRICS_NAMESPACE, type Metric } from "./metrics.ts";

/** A metric and what was measured: one value, or several of one period; undefined where nothing is known. */
export type Measurement = readonly [metric: Metric, value: number | readonly number[] | undefined];

/** CloudWatch takes 100 values of a metric in a line. */
const MAX_VALUES = 100;

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
  const values: Record<string, number[]> = {};
  const units = new Map<string, string>();
  for (const [{ name, unit }, value] of measurements) {
    const known = typeof value === "number" ? [value] : (value ?? []);
    if (known.length === 0) continue;
    units.set(name, unit);
    values[name] = [...(values[name] ?? []), ...known].slice(-MAX_VALUES);
  }
  const directive = {
    Namespace: METRICS_NAMESPACE,
    Dimensions: [Object.keys(dimensions)],
    Metrics: [...units].map(([Name, Unit]) => ({ Name, Unit })),
  };
  const _aws = { Timestamp: Date.now(), CloudWatchMetrics: [directive] };
  const singles = Object.entries(values).map(([name, all]) => [name, all.length === 1 ? all[0] : all]);
  return JSON.stringify({
    ...{ tributary: kind, ...fields, _aws, ...dimensions },
    ...Object.fromEntries(singles),
  });
}
