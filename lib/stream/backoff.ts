/** Random numbers from 0 up to, not including, 1. */
export type Random = () => number;

const BASE_MS = 50;
const CAP_MS = 5_000;

/**
 * How long a partition waits after so many failures in a row, in milliseconds: doubling from 50 ms to 5 s, the
 * upper half of it random, so that partitions that failed together do not come back together.
 */
export function backoffDelay(failures: number, random: Random): number {
  const full = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures - 1, 16));
  return full / 2 + (full / 2) * random();
}
