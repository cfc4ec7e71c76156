import { setMaxListeners } from "node:events";
import { setImmediate } from "node:timers/promises";
import { HandlerTimeoutError } from "../api/handler-errors.ts";

/** Node's timers take no more: a longer one would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Handlers may run for so long, in milliseconds, before timers and the network have their turn. */
const TURN_MS = 20;
/** Calls that are given the same signal: adding a listener is the slower, the more are there. */
const CALLS_OF_SIGNAL = 256;

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
  /** Rejects what runs. One listener for all: a pair for each of so many calls would cost more than they do. */
  readonly #bounded = new Set<(reason: unknown) => void>();
  #grace: NodeJS.Timeout | undefined;
  #hasAborted = false;
  /** No call is waited for any longer. */
  #graceIsOver = false;
  readonly #signals: AbortController[] = [];
  #calls = 0;
  /** The signal of the last call: a controller's own getter is slow. */
  #signal: AbortSignal;
  #turnAt: number;
  #turn: Promise<void> | undefined;

  /** `untilTimeoutMs`: until the function's timeout. A tenth of it, at least 0.5 s, at most 5 s, is kept for the close. */
  constructor(untilTimeoutMs: number) {
    const remainingMs = Math.min(Math.max(untilTimeoutMs || 0, 0), LONGEST_TIMER_MS);
    const reserve = Math.min(Math.max(remainingMs / 10, 500), 5_000, remainingMs / 2);
    const now = this.#startedAt;
    this.#turnAt = now;
    this.#workAt = now + remainingMs - reserve;
    this.#endAt = now + remainingMs - reserve / 10;
    // They keep the process alive: with an empty event loop AWS's runtimes answer `null`, which is success, or exit with 0.
    const abortAt = (at: number, controller: AbortController) =>
      setTimeout(() => controller.abort(new HandlerTimeoutError()), at - now);
    const [work, end] = [new AbortController(), new AbortController()];
    // Every partition's handlers listen, and what they call.
    setMaxListeners(0, work.signal, end.signal);
    this.#timers = [abortAt(this.#workAt, work), abortAt(this.#endAt, end)];
    work.signal.addEventListener("abort", () => {
      this.#hasAborted = true;
      for (const controller of this.#signals) controller.abort(work.signal.reason);
      this.#grace = setTimeout(() => {
        this.#graceIsOver = true;
        for (const reject of this.#bounded) reject(work.signal.reason);
      }, this.untilEndMs() / 2);
    });
    this.#signal = work.signal;
    this.work = work.signal;
    this.end = end.signal;
  }

  /** Milliseconds left for handlers. Needs no `this`: handlers are given it. */
  readonly remainingMs = (): number => Math.max(0, this.#workAt - performance.now());

  /** Aborts as `work` does; for one call. What handlers leave on it, the calls of a long batch do not share. */
  callSignal(): AbortSignal {
    if (this.#calls++ % CALLS_OF_SIGNAL === 0) {
      const controller = new AbortController();
      setMaxListeners(0, controller.signal);
      if (this.work.aborted) controller.abort(this.work.reason);
      this.#signals.push(controller);
      this.#signal = controller.signal;
    }
    return this.#signal;
  }

  /**
   * To be awaited between events, where it is given: handlers that never wait would else keep timers, `work` and the
   * network waiting for as long as there are events.
   */
  turn(): Promise<void> | undefined {
    if (this.#turn === undefined && performance.now() - this.#turnAt >= TURN_MS) {
      this.#turn = setImmediate().then(() => {
        this.#turnAt = performance.now();
        this.#turn = undefined;
      });
    }
    return this.#turn;
  }

  /** For what is stored before the fence is closed: aborts so early that this can still be, for all partitions. */
  storing(): AbortSignal {
    return AbortSignal.any([
      this.end,
      AbortSignal.timeout(Math.ceil(Math.max(this.remainingMs(), this.untilEndMs() / 2))),
    ]);
  }

  /** Returns whether what starts now has a fair share of the invocation's time: to be cut short is then its own fault. */
  isFair(): boolean {
    return this.remainingMs() >= (this.#workAt - this.#startedAt) / 2;
  }

  /** Returns whether `work` has aborted: asked for every event, and a signal's own getter is slow. */
  get hasAborted(): boolean {
    return this.#hasAborted;
  }

  /** Returns what is left for a call that begins now: a fair share of the time (see `isFair`), less, or nothing: none begins any more. */
  share(): "fair" | "less" | "none" {
    const leftMs = this.#workAt - performance.now();
    if (this.#hasAborted || leftMs <= 0) return "none";
    return leftMs >= (this.#workAt - this.#startedAt) / 2 ? "fair" : "less";
  }

  /** Milliseconds until the process may be ended from outside. */
  untilEndMs(): number {
    return Math.max(0, this.#endAt - performance.now());
  }

  /**
   * Waits for what is running, or throws `HandlerTimeoutError` when it has not ended a while after `work` aborted. It may still run
   * then: nothing can stop it.
   */
  bound<T>(running: PromiseLike<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#graceIsOver) reject(this.work.reason);
      else this.#bounded.add(reject);
      running.then(
        (value) => {
          this.#bounded.delete(reject);
          resolve(value);
        },
        (error) => {
          this.#bounded.delete(reject);
          reject(error);
        },
      );
    });
  }

  clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#grace);
  }
}
