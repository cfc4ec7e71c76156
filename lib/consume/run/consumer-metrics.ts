import { redriveMetricsLine } from "#redrive";
import { type Measurement, metricsLine } from "../../telemetry/emf.ts";
import { CONSUMER_METRIC, DIMENSION, dimensionsOf, type MeasuredPipeline } from "../../telemetry/metrics.ts";
import type { ConsumerObserver, InvocationReport } from "./observer.ts";

type Counter = Exclude<keyof typeof CONSUMER_METRIC, "commitToEffectMs">;

const COUNTERS = (Object.keys(CONSUMER_METRIC) as (keyof typeof CONSUMER_METRIC)[]).filter(
  (name): name is Counter => name !== "commitToEffectMs",
);

/** Writes each report as a line of metrics, which carries the report's own fields too. */
export function metricsObserver(of: MeasuredPipeline, write: (line: string) => void): ConsumerObserver {
  return {
    invocation: (report) => write(consumerMetricsLine(of, report)),
    redrive: (report) => write(redriveMetricsLine(of, report)),
  };
}

/**
 * The metrics of one invocation. Counters that stayed at zero are left out, but `applied`: CloudWatch bills each metric for
 * every hour in which it has a value.
 */
export function consumerMetricsLine(of: MeasuredPipeline, report: InvocationReport): string {
  const counted = COUNTERS.filter((name) => name === "applied" || report[name] > 0);
  const measurements: Measurement[] = counted.map((name) => [CONSUMER_METRIC[name], report[name]]);
  if (report.commitToEffectMs) {
    measurements.push([CONSUMER_METRIC.commitToEffectMs, report.commitToEffectMs.spread]);
  }
  return metricsLine("consumer", dimensionsOf(of, { [DIMENSION.consumer]: report.consumer }), measurements, {
    ...report,
  });
}
