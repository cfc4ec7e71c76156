import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { PositionText } from "../../change/position.ts";
import type { PartitionName } from "../consume-errors.ts";

/** Clocks of two machines may differ by this much, in milliseconds. */
const CLOCK_SKEW_MS = 5_000;
/** Late successes that a process remembers: each was a call that outlived its invocation. */
const REMEMBERED = 1_000;

/** A call that ran on when its invocation ended, as a later one must know of it: where, and until when at most. */
export interface RunningCall {
  readonly process: string;
  /** Milliseconds since 1970: what its process may still do, it has done by then. */
  readonly until: number;
}

/**
 * The calls of handlers that their invocations wait for no longer, in this process: nothing can stop them, and they may
 * still act. Until they have ended nothing else happens in their partition: no later change takes effect, and theirs is
 * neither called again nor given up, or the old call's effect would come after what follows it.
 */
export class RunningCalls {
  /** Stands for this process. */
  readonly process = randomBytes(9).toString("base64url");
  readonly #running = new Map<string, Promise<void>>();
  readonly #succeeded = new Set<string>();

  /** Returns whether calls still run, of one partition or of any. */
  has(place?: PartitionName): boolean {
    return place ? this.#running.has(nameOf(place)) : this.#running.size > 0;
  }

  /** A call is waited for no longer; `position` where it is for one change alone. */
  add(place: PartitionName, call: PromiseLike<boolean>, position: PositionText | undefined): void {
    const name = nameOf(place);
    const earlier = this.#running.get(name);
    const own = call.then(
      (succeeded) => {
        if (succeeded && position !== undefined) this.#succeed(`${name}/${position}`);
      },
      () => {},
    );
    // Of an invocation and of a redrive beside it: the one's end says nothing of the other.
    const ended = Promise.all([earlier, own]).then(() => {});
    this.#running.set(name, ended);
    void ended.then(() => {
      if (this.#running.get(name) === ended) this.#running.delete(name);
    });
  }

  /** Returns whether a call for this change succeeded after its invocation had ended. */
  succeeded(place: PartitionName, position: PositionText): boolean {
    return this.#succeeded.size > 0 && this.#succeeded.has(`${nameOf(place)}/${position}`);
  }

  #succeed(change: string): void {
    this.#succeeded.add(change);
    const [oldest] = this.#succeeded;
    if (this.#succeeded.size > REMEMBERED && oldest !== undefined) this.#succeeded.delete(oldest);
  }

  /** Returns what is to be remembered of a partition's call, if one runs; `leftMs` is until the function's own timeout. */
  describe(place: PartitionName, leftMs: number): RunningCall | undefined {
    if (!this.has(place)) return undefined;
    return { process: this.process, until: Date.now() + Math.ceil(leftMs) + CLOCK_SKEW_MS };
  }

  /**
   * Waits until no call of a partition runs, in this process or in the one that an earlier invocation speaks of. Returns
   * false where `signal` aborts first.
   */
  async haveEnded(
    place: PartitionName,
    known: RunningCall | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const own = this.#running.get(nameOf(place));
    if (own && !(await settledBefore(own, signal))) return false;
    if (!known || known.process === this.process) return true;
    const leftMs = known.until - Date.now();
    if (leftMs > 0) await sleep(leftMs, undefined, { signal }).catch(() => {});
    return Date.now() >= known.until;
  }
}

async function settledBefore(call: Promise<void>, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  let stop: (() => void) | undefined;
  const aborted = new Promise<false>((resolve) => {
    stop = () => resolve(false);
    signal.addEventListener("abort", stop);
  });
  try {
    return await Promise.race([call.then(() => true), aborted]);
  } finally {
    if (stop) signal.removeEventListener("abort", stop);
  }
}

function nameOf({ topic, partition }: PartitionName): string {
  return `${topic}/${partition}`;
}
