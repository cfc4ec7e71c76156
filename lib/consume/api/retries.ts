import { backoffMs } from "../../backoff.ts";

/** Returns the milliseconds to wait after so many failed calls: doubling from 100 ms to 5 s, the upper half of it random. */
export function retryDelay(calls: number): number {
  return backoffMs(calls, { baseMs: 100, capMs: 5_000 });
}
