/** Resolves after `ms`, or as soon as the signal is aborted; never rejects: look at the signal afterwards. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Condition().wait(signal, ms);
}

/** Wakes those who wait for something to change; each looks again for itself. */
export class Condition {
  readonly #waiting = new Set<() => void>();

  notify(): void {
    for (const wake of this.#waiting) wake();
  }

  /** Resolves at the next `notify`, after `ms` where given, or when the signal is aborted; never rejects. */
  wait(signal: AbortSignal, ms?: number): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = ms === undefined ? undefined : setTimeout(wake, ms);
      signal.addEventListener("abort", wake, { once: true });
      this.#waiting.add(wake);
    });
  }
}

/** Calls `call` with a signal that is aborted with the outer one and after `ms`. */
export async function withDeadline<T>(
  signal: AbortSignal,
  ms: number,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const inner = new AbortController();
  const abort = () => inner.abort(signal.reason);
  const timer = setTimeout(() => inner.abort(new Error(`no answer within ${ms} ms`)), ms);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await call(inner.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}
