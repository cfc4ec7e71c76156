import { setTimeout as sleep } from "node:timers/promises";
import { isTransient } from "../state/table-error.ts";
import { FenceUnavailableError } from "./errors.ts";

const BASE_MS = 25;
const CAP_MS = 1_000;

/**
 * Makes a call to the state table, again with jittered backoff while it is throttled or unanswered. A try
 * whose answer was lost may have been carried out: `call` must bear being repeated.
 * @throws FenceUnavailableError when `signal` aborts first, and errors that no repetition helps, as they are.
 */
export async function callTable<T>(what: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await call();
    } catch (error) {
      if (!isTransient(error)) throw error;
      const full = Math.min(CAP_MS, BASE_MS * 2 ** failures);
      if (!signal.aborted) {
        await sleep(full / 2 + (full / 2) * Math.random(), undefined, { signal }).catch(() => {});
      }
      if (signal.aborted) throw new FenceUnavailableError(what, error);
    }
  }
}
