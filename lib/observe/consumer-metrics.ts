import type { ConsumerObserver, InvocationReport } from "../consume/observer.ts";
import { type Measurement, metricsLine } from "./emf.ts";
import { CONSUMER_METRIC, DIMENSION } from "./metric-names.ts";

type Counter = Exclude<keyof typeof CONSUMER_METRIC, "commitToEffectMs">;

const COUNTERS = (Object.keys(CONSUMER_METRIC) as (keyof typeof CONSUMER_METRIC)[]).filter(
  (name): name is Counter => name !== "commitToEffectMs",
);

/** Writes each report as a line of metrics, which carries the report's own fields too. */
export function metricsObserver(pipeline: string, write: (line: string) => void): ConsumerObserver {
  return { invocation: (report) => write(consumerMetricsLine(pipeline, report)) };
}

/**
 * The metrics of one invocation. Counters that stayed at zero are left out, but `applied`: CloudWatch bills each metric for
 * every hour in which it has a value.
 */
export function consumerMetricsLine(pipeline: string, report: InvocationReport): string {
  const counted = COUNTERS.filter((name) => name === "applied" || report[name] > 0);
  const measurements: Measurement[] = counted.map((name) => [CONSUMER_METRIC[name], report[name]]);
  if (report.commitToEffectMs) {
    measurements.push([CONSUMER_METRIC.commitToEffectMs, report.commitToEffectMs.spread]);
  }
  const dimensions = { [DIMENSION.pipeline]: pipeline, [DIMENSION.consumer]: report.consumer };
  return metricsLine("consumer", dimensions, measurements, { ...report });
}
