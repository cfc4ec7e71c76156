/** Random numbers from 0 up to, not including, 1. */
export type Random = () => number;

/** Growth of the waits while something fails. */
export interface Backoff {
  /** After the first failure, in milliseconds; it doubles with each. */
  readonly baseMs: number;
  /** The longest. */
  readonly capMs: number;
  /**
   * Share of a wait that is random, so that those who failed together do not come back together. Default 0.5: the upper half.
   */
  readonly jitter?: number;
}

/**
 * Returns the wait after so many failures in a row, from 1, in milliseconds.
 *
 * @example
 * await sleep(backoffMs(failures, { baseMs: 50, capMs: 5_000 }), undefined, { signal });
 */
export function backoffMs(
  failures: number,
  { baseMs, capMs, jitter = 0.5 }: Backoff,
  random: Random = Math.random,
): number {
  const full = Math.min(capMs, baseMs * 2 ** (failures - 1));
  return full * (1 - jitter + jitter * random());
}
