import { setTimeout as sleep } from "node:timers/promises";
import { backoffMs } from "../backoff.ts";
import { isTransient } from "./table-error.ts";

/** The longest that the first wait may be, in milliseconds. */
const BASE_MS = 50;

/** Until when one call to the state table is tried, and the error that it ends in. */
export interface CallLimits {
  /** No try is followed by another once this has aborted. */
  readonly signal: AbortSignal;
  /** True if the signal also cuts the try or the wait that is under way. */
  readonly cut: boolean;
  /** Milliseconds after which no try is followed by another. Omit for the signal alone. */
  readonly forMs?: number;
  /** The longest wait between two tries, in milliseconds. */
  readonly longestWaitMs: number;
  /** Returns the error for a call that no repetition helps. */
  refused(error: unknown): unknown;
  /** Returns the error for a call whose limits are reached, from the error of its last try. */
  givenUp(error: unknown): unknown;
}

/**
 * Makes a call to the state table, again with jittered backoff while it is throttled or unanswered. A try whose answer was
 * lost may have been carried out: `call` must bear being repeated.
 * @throws what the limits make of an error.
 */
export async function retryCall<T>(
  limits: CallLimits,
  call: (options: { readonly abortSignal?: AbortSignal }) => Promise<T>,
): Promise<T> {
  const { signal, cut, forMs = Number.POSITIVE_INFINITY, longestWaitMs } = limits;
  const deadline = performance.now() + forMs;
  for (let failures = 1; ; failures++) {
    try {
      return await call(cut ? { abortSignal: signal } : {});
    } catch (error) {
      if (!isTransient(error)) throw limits.refused(error);
      if (signal.aborted || performance.now() >= deadline) throw limits.givenUp(error);
      const waitMs = backoffMs(failures, { baseMs: BASE_MS, capMs: longestWaitMs });
      await sleep(waitMs, undefined, cut ? { signal } : {}).catch(() => {});
      if (cut && signal.aborted) throw limits.givenUp(error);
    }
  }
}

/** Limits of a call that is made once, and ends in the error that it met: for callers that look again by themselves. */
export function once(signal: AbortSignal): CallLimits {
  const asItIs = (error: unknown) => error;
  return { signal, cut: true, forMs: 0, longestWaitMs: 0, refused: asItIs, givenUp: asItIs };
}
