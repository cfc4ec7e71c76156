import { formatLsn } from "../change/lsn.ts";
import type { ConfigurationProblem } from "../change/tributary-error.ts";
import type { SourceStatus } from "../source/postgres/postgres-source.ts";
import { hasEnded } from "../state/backfills.ts";
import { type Measurement, metricsLine } from "../telemetry/emf.ts";
import { CAPTURE_METRIC, DIMENSION, dimensionsOf, type MeasuredPipeline } from "../telemetry/metrics.ts";
import { BackfillMetrics, toldBackfills } from "./backfill-metrics.ts";
import type { CaptureMetrics } from "./capture-options.ts";
import { TableMetrics } from "./table-metrics.ts";

/** Interval at which the capture task writes its metrics, in seconds, by default. */
const DEFAULT_METRICS_SECONDS = 20;

/** Names the seconds between two lines of metrics. */
export const METRICS_SECONDS_VARIABLE = "TRIBUTARY_METRICS_SECONDS";

/** Reads `TRIBUTARY_METRICS_SECONDS`: 1 to 60 seconds; left out, the default. */
export function metricsSecondsFromEnvironment(environment: Readonly<Record<string, string | undefined>>): {
  readonly seconds: number;
  readonly problem?: ConfigurationProblem;
} {
  const value = environment[METRICS_SECONDS_VARIABLE];
  if (value === undefined) return { seconds: DEFAULT_METRICS_SECONDS };
  if (/^([1-9]|[1-5]\d|60)$/.test(value)) return { seconds: Number(value) };
  const remedy = `write seconds from 1 to 60, or leave it out for ${DEFAULT_METRICS_SECONDS}`;
  return { seconds: DEFAULT_METRICS_SECONDS, problem: { path: METRICS_SECONDS_VARIABLE, value, remedy } };
}

/** Dependencies of `CapturePublisher`. */
export interface CapturePublisherOptions extends MeasuredPipeline {
  /** The number of the slot, where a pipeline has several: beyond the first it is a dimension. */
  readonly slot?: number;
  /** Between two lines, in seconds. */
  readonly seconds: number;
  readonly write: (line: string) => void;
}

const COUNTERS = ["changes", "bytes", "records", "requests", "retries", "throttles", "oversize"] as const;

/**
 * Writes the capture task's metrics as lines: one of the pipeline, one of each busy table. Counters are published as what
 * was added since the line before; gauges with every value that was taken meanwhile, so that a short peak is seen.
 */
export class CapturePublisher {
  readonly #options: CapturePublisherOptions;
  readonly #tables: TableMetrics;
  readonly #backfills: BackfillMetrics;
  readonly #gauges = new Map<keyof typeof CAPTURE_METRIC, number[]>();
  readonly #published = new Map<string, number>();
  #latest: CaptureMetrics | undefined;
  #writtenAt: number | undefined;
  #pausedSince: number | undefined;

  constructor(options: CapturePublisherOptions) {
    this.#options = options;
    this.#tables = new TableMetrics(options);
    this.#backfills = new BackfillMetrics(options);
  }

  /** Takes what is known now (every second or so), and writes when it is time; the first time at once. */
  take(metrics: CaptureMetrics, now = Date.now()): void {
    const turns = metrics.paused?.since !== this.#pausedSince;
    if (turns) this.#turn(metrics, now);
    this.#latest = metrics;
    for (const [name, value] of gauges(metrics, now)) {
      const values = this.#gauges.get(name);
      if (values) values.push(value);
      else this.#gauges.set(name, [value]);
    }
    const due =
      turns || this.#writtenAt === undefined || now - this.#writtenAt >= this.#options.seconds * 1000;
    if (due) this.flush(now);
  }

  /** The task pauses, or goes on: counters begin anew, and what was added before is published. */
  #turn({ paused }: CaptureMetrics, now: number): void {
    this.flush(now);
    this.#pausedSince = paused?.since;
    this.#published.clear();
    this.#tables.restart();
  }

  /** Writes what was taken since the last line; at the end of the task, so that nothing of it is missing. */
  flush(now = Date.now()): void {
    const metrics = this.#latest;
    if (!metrics) return;
    this.#latest = undefined;
    this.#writtenAt = now;
    const measurements: Measurement[] = [...this.#gauges].map(([name, values]) => [
      CAPTURE_METRIC[name],
      values,
    ]);
    this.#gauges.clear();
    for (const name of COUNTERS) {
      measurements.push([CAPTURE_METRIC[name], this.#added(name, metrics.stream[name])]);
    }
    const reconnects = metrics.source?.reconnects ?? 0;
    measurements.push([CAPTURE_METRIC.reconnects, this.#added("reconnects", reconnects)]);
    if (isLog(metrics.source))
      measurements.push([CAPTURE_METRIC.putAside, this.#added("putAside", metrics.source.putAside)]);
    const dimensions = captureDimensions(this.#options);
    for (const line of this.#tables.lines(metrics.stream.tables)) this.#options.write(line);
    if (isLog(metrics.source))
      for (const line of this.#backfills.lines(metrics.source.backfills)) this.#options.write(line);
    this.#options.write(metricsLine("capture", dimensions, measurements, status(metrics, now)));
  }

  #added(name: string, total: number): number {
    const before = this.#published.get(name) ?? 0;
    this.#published.set(name, total);
    return total - before;
  }
}

/** Returns the dimensions of a task's metrics. */
export function captureDimensions({ slot = 1, ...of }: CapturePublisherOptions): Record<string, string> {
  return dimensionsOf(of, slot > 1 ? { [DIMENSION.slot]: String(slot) } : {});
}

/** Returns the present values, as far as they are known. */
function gauges(
  { stream, source }: CaptureMetrics,
  now: number,
): readonly (readonly [keyof typeof CAPTURE_METRIC, number])[] {
  const known: Partial<Record<keyof typeof CAPTURE_METRIC, number | undefined>> = {
    replicationLagMs: lagMs(stream, now),
    bufferedBytes: stream.bufferedBytes,
    unacknowledgedMs: Math.max(stream.oldestUnacknowledgedMs, stream.unansweredMs ?? 0),
    oldestTransactionSeconds: source?.oldestTransactionSeconds,
    ...(isLog(source)
      ? {
          replicationLagBytes: lagBytes(source),
          slotActive: source.connected ? 1 : 0,
          walHeldBytes: source.walHeldBytes,
          walBudgetLeft: walBudgetLeft(source),
          walLossSeconds: source.walLossSeconds,
          leftoverSlots: source.leftoverSlots?.length,
          heldTopics: source.holds.length,
          heldBytes: source.holds.reduce((sum, { bytes }) => sum + bytes, 0),
          unhealedTables: (source.unhealed ?? []).filter(({ asks }) => !asks).length,
          // Each metric is billed: most pipelines never have such a row.
          rowsAsked: source.rowsAsked > 0 ? source.rowsAsked : undefined,
          backfills: source.backfills.filter((report) => !hasEnded(report)).length,
        }
      : { sourceConnected: source && (source.connected ? 1 : 0) }),
  };
  const names = Object.keys(known) as (keyof typeof known)[];
  return names.flatMap((name) => {
    const value = known[name];
    return value === undefined ? [] : [[name, value] as const];
  });
}

/** Returns whether a source is a log that is read through a slot. */
export function isLog(source: CaptureMetrics["source"]): source is SourceStatus {
  return source !== undefined && !("kind" in source);
}

/** Returns how far capture is behind by time, in milliseconds. Only while something waits: an idle database is not late. */
export function lagMs(
  { oldestUnacknowledgedMs, unansweredMs = 0, acknowledgedCommitTimeMs }: CaptureMetrics["stream"],
  now: number,
): number {
  const waitedMs = Math.max(oldestUnacknowledgedMs, unansweredMs);
  if (waitedMs <= 0) return 0;
  return acknowledgedCommitTimeMs === undefined ? waitedMs : Math.max(0, now - acknowledgedCommitTimeMs);
}

/** Returns the bytes of WAL that are not confirmed. */
export function lagBytes({ serverLsn, confirmedLsn }: SourceStatus): number {
  return Number(serverLsn > confirmedLsn ? serverLsn - confirmedLsn : 0n);
}

/** Per cent of what the slot may hold back. https://www.postgresql.org/docs/current/view-pg-replication-slots.html */
function walBudgetLeft({ safeWalBytes, walHeldBytes }: SourceStatus): number | undefined {
  if (walHeldBytes === undefined) return undefined;
  if (safeWalBytes === undefined) return 100;
  if (safeWalBytes <= 0) return 0;
  return (100 * safeWalBytes) / (safeWalBytes + walHeldBytes);
}

/** Status of the task for the local host and for people who read the line: totals since its start, positions, and what holds WAL back. */
function status({ stream, source }: CaptureMetrics, now: number): Record<string, unknown> {
  const { changes, retries, throttles, bufferedBytes, oldestUnacknowledgedMs, acknowledgedPlace } = stream;
  return {
    ...{ changes, retries, throttles, bufferedBytes, oldestUnacknowledgedMs },
    lagMs: lagMs(stream, now),
    // The place of a source that has no LSN stands apart: who reads the line parses an LSN.
    ...(typeof acknowledgedPlace === "bigint"
      ? { acknowledgedLsn: formatLsn(acknowledgedPlace) }
      : { acknowledgedPlace }),
    oldestTransactionSeconds: source?.oldestTransactionSeconds,
    ...(isLog(source) && {
      lagBytes: lagBytes(source),
      confirmedLsn: formatLsn(source.confirmedLsn),
      serverLsn: formatLsn(source.serverLsn),
      walStatus: source.walStatus,
      leftoverSlots: source.leftoverSlots,
      walHeldBytes: source.walHeldBytes,
      walLossSeconds: source.walLossSeconds,
      oldestTransactionPid: source.oldestTransactionPid,
      backfills: toldBackfills(source.backfills, now),
      ...(source.holds.length > 0 && { holds: source.holds }),
    }),
  };
}
