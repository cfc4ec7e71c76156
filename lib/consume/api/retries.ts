const BASE_MS = 100;
const CAP_MS = 5_000;

/** How long to wait after so many failed calls: doubling from 100 ms to 5 s, the upper half of it random. */
export function retryDelay(calls: number): number {
  const full = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(calls - 1, 16));
  return full / 2 + (full / 2) * Math.random();
}
