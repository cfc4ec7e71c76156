import { type Backfill, hasEnded } from "./backfills.ts";

/** Progress of a backfill in numbers, for people, metrics and the live view. */
export interface BackfillFigures {
  readonly rows: number;
  /** 0 to 100; 100 only when it is done. Undefined where the server has no estimate of the table. */
  readonly percent: number | undefined;
  /** Over the time since it began. Undefined before its first chunk. */
  readonly rowsPerSecond: number | undefined;
  /** At that rate. Undefined where rate or estimate are, and after its end. */
  readonly remainingSeconds: number | undefined;
}

/** The figures of a backfill as its item in the state table tells them. */
export function backfillFigures(backfill: Pick<Backfill, "status" | "progress">): BackfillFigures {
  const { status, progress } = backfill;
  if (!progress)
    return { rows: 0, percent: undefined, rowsPerSecond: undefined, remainingSeconds: undefined };
  const { rows, estimatedRows, startedAt, updatedAt, finishedAt = updatedAt } = progress;
  const seconds = (finishedAt - startedAt) / 1000;
  const rate = seconds > 0 && rows > 0 ? rows / seconds : undefined;
  // The server's estimate may be old: what is read already says more.
  const total = estimatedRows === undefined ? undefined : Math.max(estimatedRows, rows);
  return {
    rows,
    percent: status === "done" ? 100 : total ? Math.min(99, Math.floor((100 * rows) / total)) : undefined,
    rowsPerSecond: rate,
    remainingSeconds:
      rate === undefined || total === undefined || hasEnded(backfill)
        ? undefined
        : Math.ceil((total - rows) / rate),
  };
}
