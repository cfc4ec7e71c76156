import type { BackfillReport } from "../source/postgres/backfill/backfills.ts";
import { backfillFigures } from "../state/backfill-figures.ts";
import { hasEnded } from "../state/backfills.ts";
import { type Measurement, metricsLine } from "../telemetry/emf.ts";
import { BACKFILL_METRIC, DIMENSION, dimensionsOf, type MeasuredPipeline } from "../telemetry/metrics.ts";
import { asciiDimension, MAX_TABLES } from "./table-metrics.ts";

/** A backfill in the capture task's line, for the live view and for people. */
export interface BackfillLine {
  readonly table: string;
  readonly status: BackfillReport["status"];
  readonly rows: number;
  readonly percent: number | undefined;
}

/** Time that an ended backfill is still reported for, in milliseconds. */
const TOLD_MS = 60_000;

/** Backfills that are under way, or have just ended. */
export function toldBackfills(reports: readonly BackfillReport[], now: number): readonly BackfillLine[] {
  return reports
    .filter((report) => !hasEnded(report) || now - (report.progress?.finishedAt ?? 0) < TOLD_MS)
    .map((report) => {
      const { rows, percent } = backfillFigures(report);
      return { table: report.table, status: report.status, rows, percent };
    });
}

/** Publishes what was added by backfills, table by table, while they are under way. */
export class BackfillMetrics {
  readonly #of: MeasuredPipeline;
  readonly #published = new Map<string, { run: number; rows: number; ended: boolean }>();

  constructor(of: MeasuredPipeline) {
    this.#of = of;
  }

  /** Lines of the backfills that are under way, or ended since the lines before; 20 at most. */
  lines(reports: readonly BackfillReport[]): string[] {
    const lines: string[] = [];
    for (const report of reports) {
      const { table, run } = report;
      const { rows, percent } = backfillFigures(report);
      const ended = hasEnded(report);
      const before = this.#published.get(table);
      // What ended before this task began is no news.
      const known =
        before?.run === run ? before : { rows: ended || !before ? rows : 0, ended: ended && !before };
      this.#published.set(table, { run, rows, ended });
      if (known.ended || lines.length === MAX_TABLES) continue;
      const measurements: Measurement[] = [[BACKFILL_METRIC.rows, Math.max(0, rows - known.rows)]];
      if (percent !== undefined) measurements.push([BACKFILL_METRIC.percent, percent]);
      const dimensions = dimensionsOf(this.#of, { [DIMENSION.table]: asciiDimension(table) });
      lines.push(metricsLine("capture-backfill", dimensions, measurements));
    }
    return lines;
  }
}
