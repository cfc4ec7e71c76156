import { setMaxListeners } from "node:events";
import { HandlerTimeoutError } from "./errors.ts";

/**
 * The times of one invocation: handlers end at `work`, the fence is closed between `work` and `end`, a little
 * before the function's own timeout.
 */
export class Deadline {
  /** Aborts when handlers must end. */
  readonly work: AbortSignal;
  /** Aborts when not even the state table can be written any more. */
  readonly end: AbortSignal;
  readonly #startedAt = performance.now();
  readonly #workAt: number;
  readonly #endAt: number;
  readonly #timers: readonly NodeJS.Timeout[];

  /** `remainingMs`: until the function's timeout. A tenth of it, at least 0.5 s, at most 5 s, is kept for the close. */
  constructor(remainingMs: number) {
    const reserve = Math.min(Math.max(remainingMs / 10, 500), 5_000, remainingMs / 2);
    const now = this.#startedAt;
    this.#workAt = now + remainingMs - reserve;
    this.#endAt = now + remainingMs - reserve / 10;
    const abortAt = (at: number, controller: AbortController) =>
      setTimeout(() => controller.abort(new HandlerTimeoutError()), at - now).unref();
    const [work, end] = [new AbortController(), new AbortController()];
    // Every partition's handlers listen, and what they call.
    setMaxListeners(0, work.signal, end.signal);
    this.#timers = [abortAt(this.#workAt, work), abortAt(this.#endAt, end)];
    this.work = work.signal;
    this.end = end.signal;
  }

  /** Milliseconds left for handlers. */
  remainingMs(): number {
    return Math.max(0, this.#workAt - performance.now());
  }

  /** Whether what starts now has a fair share of the invocation's time: to be cut short is then its own fault. */
  isFair(): boolean {
    return this.remainingMs() >= (this.#workAt - this.#startedAt) / 2;
  }

  /** Milliseconds until the process may be ended from outside. */
  untilEndMs(): number {
    return Math.max(0, this.#endAt - performance.now());
  }

  /**
   * What `run` gives, or throws `HandlerTimeoutError` when it has not ended a while after `work` aborted. It may
   * still run then: nothing can stop it.
   */
  bound<T>(run: () => T | Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let grace: NodeJS.Timeout | undefined;
      const onAbort = () => {
        grace = setTimeout(() => reject(this.work.reason), this.untilEndMs() / 2);
      };
      const ended = () => {
        clearTimeout(grace);
        this.work.removeEventListener("abort", onAbort);
      };
      this.work.addEventListener("abort", onAbort, { once: true });
      Promise.resolve().then(run).finally(ended).then(resolve, reject);
    });
  }

  clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}
