import { setTimeout as sleep } from "node:timers/promises";
import { backoffMs } from "../../backoff.ts";
import { TributaryError } from "../../change/tributary-error.ts";

/** Returns the milliseconds to wait after so many failed calls: doubling from 100 ms to 5 s, the upper half of it random. */
export function retryDelay(calls: number): number {
  return backoffMs(calls, { baseMs: 100, capMs: 5_000 });
}

/** Repeats what throws an error that passes by itself, until it succeeds or `signal` aborts. @throws its last error */
export async function whilePassing<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !(error instanceof TributaryError) || error.retry !== "retry") throw error;
      await sleep(retryDelay(failures), undefined, { signal }).catch(() => {});
      if (signal.aborted) throw error;
    }
  }
}
