import type { CaptureMetrics } from "../capture.ts";
import { formatLsn } from "../change/lsn.ts";

/** One line of the capture task's metrics: JSON, counters since its start and gauges of now. */
export function captureMetricsLine({ stream, source }: CaptureMetrics, now = Date.now()): string {
  const { acknowledgedCommitTimeMs, acknowledgedLsn, tables, ...counters } = stream;
  const waiting = stream.oldestUnacknowledgedMs > 0;
  return JSON.stringify({
    tributary: "capture",
    ...counters,
    tables: Object.fromEntries(tables),
    acknowledgedLsn: acknowledgedLsn === undefined ? undefined : formatLsn(acknowledgedLsn),
    // Behind by time only while something waits: an idle database is not late.
    lagMs:
      waiting && acknowledgedCommitTimeMs !== undefined ? Math.max(0, now - acknowledgedCommitTimeMs) : 0,
    ...sourceGauges(source),
  });
}

function sourceGauges(source: CaptureMetrics["source"]) {
  if (!source) return { connected: false };
  const { confirmedLsn, serverLsn, receivedLsn, ...rest } = source;
  return {
    ...rest,
    confirmedLsn: formatLsn(confirmedLsn),
    serverLsn: formatLsn(serverLsn),
    receivedLsn: formatLsn(receivedLsn),
    lagBytes: Number(serverLsn > confirmedLsn ? serverLsn - confirmedLsn : 0n),
  };
}
