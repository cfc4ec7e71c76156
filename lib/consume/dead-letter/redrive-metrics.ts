import { metricsLine } from "../../telemetry/emf.ts";
import { DIMENSION, dimensionsOf, type MeasuredPipeline, REDRIVE_METRIC } from "../../telemetry/metrics.ts";
import type { RedriveReport } from "./redrive-request.ts";

/** The metrics of one redrive, and what it did without the keys: they are row values (rule 30). */
export function redriveMetricsLine(of: MeasuredPipeline, report: RedriveReport): string {
  const { letters: _, tributary, ...facts } = report;
  const { redriven, discarded, failed } = REDRIVE_METRIC;
  const dimensions = dimensionsOf(of, { [DIMENSION.consumer]: report.consumer });
  const counts = [
    [redriven, report.redriven],
    [discarded, report.discarded],
    [failed, report.failed],
  ] as const;
  return metricsLine(tributary, dimensions, counts, facts);
}
