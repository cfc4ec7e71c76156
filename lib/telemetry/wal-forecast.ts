/** State of a slot at one moment. */
export interface WalSample {
  /** Milliseconds of one clock. */
  readonly atMs: number;
  /** WAL that the slot holds back: from its restart LSN to the end of the log. */
  readonly heldBytes: number;
  /** `safe_wal_size`: WAL that may still be written before the slot is in danger; undefined without a bound. */
  readonly safeBytes: number | undefined;
}

/** A trend shorter than this says nothing: a restart LSN moves in steps of up to 15 s. */
const SHORTEST_TREND_MS = 60_000;

/** Age up to which samples count. */
export const FORECAST_WINDOW_MS = 600_000;

/**
 * Seconds until the server gives up the slot, if what it holds back goes on growing as it did; 0 when it may happen at the
 * next checkpoint. Undefined where nothing threatens: no bound, nothing grows, or too little was seen.
 *
 * What counts is what is held back, not what is written: a slot that moves along with a busy log is in no danger. Of the
 * whole window and its last minute the steeper one counts, so that a sudden burst is seen.
 *
 * `samples`: oldest first. https://www.postgresql.org/docs/current/view-pg-replication-slots.html
 */
export function walLossSeconds(samples: readonly WalSample[]): number | undefined {
  const last = samples.at(-1);
  if (last?.safeBytes === undefined) return undefined;
  if (last.safeBytes <= 0) return 0;
  const window = samples.filter(({ atMs }) => last.atMs - atMs <= FORECAST_WINDOW_MS);
  const minuteAgo = window.findLast(({ atMs }) => last.atMs - atMs >= SHORTEST_TREND_MS);
  const growth = Math.max(bytesPerSecond(window[0], last), bytesPerSecond(minuteAgo, last));
  return growth > 0 ? last.safeBytes / growth : undefined;
}

function bytesPerSecond(from: WalSample | undefined, to: WalSample): number {
  if (from === undefined || to.atMs - from.atMs < SHORTEST_TREND_MS) return 0;
  return ((to.heldBytes - from.heldBytes) * 1000) / (to.atMs - from.atMs);
}
