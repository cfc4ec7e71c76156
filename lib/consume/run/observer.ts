import { errorFacts, type Logger } from "../api/context.ts";
import type { RedriveReport } from "../dead-letter/redrive-request.ts";

/**
 * The report of one invocation.
 *
 * @example
 * const late = (report: InvocationReport) => (report.commitToEffectMs?.p99 ?? 0) > 10_000;
 */
export interface InvocationReport {
  readonly consumer: string;
  /** Events whose handler succeeded. */
  readonly applied: number;
  /** Events that took effect before, or stand below the start position. */
  readonly duplicates: number;
  /** Events that no handler is registered for. */
  readonly unhandled: number;
  /** Changes that no handler matched since the function's process began, 20 kinds at most: `public.orders update`. Left out where `unhandled` is 0. */
  readonly unmatched?: readonly string[];
  /** Control events, and what a backfill read for another consumer: no handler's business. */
  readonly passed: number;
  /** Handler calls beyond the first for a change. */
  readonly retried: number;
  readonly deadLettered: number;
  /** Changes that failed for good, behind which later ones of their key wait. */
  readonly parked: number;
  /** Changes that were put behind a parked one of their key, without a call of the handler. */
  readonly parkedBehind: number;
  /** Open dead letters that a later change, or a truncate, made pointless. */
  readonly superseded: number;
  /** Partitions stopped because no more can be parked there. */
  readonly parkingFull: number;
  /** Partitions stopped by a gap. */
  readonly gaps: number;
  /** Records of a writer that was superseded. */
  readonly staleWriter: number;
  /** Times that a partition stopped by the policy `stop`, at a change that failed and has no key, or at what this version cannot read. */
  readonly held: number;
  /** Partitions of the invocation that are held at its end: their shards go on, they wait for somebody. */
  readonly heldPartitions: number;
  /** Bytes of records that these hold. */
  readonly heldBytes: number;
  /** Partitions stopped because no more can be held of them: their shards wait. */
  readonly holdFull: number;
  /** Partitions that stopped: their records come again. */
  readonly failedPartitions: number;
  /** From commit at the source to the handler's success, milliseconds, over the invocation's events. */
  readonly commitToEffectMs: CommitToEffect | null;
  readonly durationMs: number;
  /** Present while the consumer is paused, and nothing was done: who paused it, when and why. */
  readonly paused?: string;
}

/**
 * Time from commit to effect, in milliseconds.
 *
 * @example
 * const slowest = ({ max }: CommitToEffect) => `${max} ms`;
 */
export interface CommitToEffect {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** At most 20 values that stand for all of them: ascending, evenly spread, the last the largest. */
  readonly spread: readonly number[];
}

/**
 * Takes the reports of invocations: one line an invocation on standard output, unless another is given.
 *
 * @example
 * const observer: ConsumerObserver = { invocation: (report) => metrics.add("applied", report.applied) };
 */
export interface ConsumerObserver {
  /** May return a promise, which is waited for: at most a second, and no longer than the function may run. */
  invocation(report: InvocationReport): unknown;
  /** A redrive has ended; `letters` names keys, which are row values. */
  redrive?(report: RedriveReport): unknown;
}

/** Milliseconds that an invocation waits for its observer, at most. */
const OBSERVER_MS = 1_000;

/**
 * Gives an observer its report. What becomes of it is the observer's affair: the invocation is closed by then. Never throws.
 */
export async function tellObserver(tell: () => unknown, leftMs: number, logger: Logger): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    const told = Promise.resolve(tell());
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(resolve, Math.min(OBSERVER_MS, leftMs / 2), "late");
    });
    if ((await Promise.race([told, late])) === "late") {
      told.catch(() => {});
      logger.warn("the observer did not end in time");
    }
  } catch (error) {
    logger.warn("the observer failed", errorFacts(error));
  } finally {
    clearTimeout(timer);
  }
}

const SPREAD = 20;

/** Counts while an invocation runs. */
export class InvocationCounts {
  applied = 0;
  duplicates = 0;
  unhandled = 0;
  passed = 0;
  retried = 0;
  deadLettered = 0;
  parked = 0;
  parkedBehind = 0;
  superseded = 0;
  parkingFull = 0;
  gaps = 0;
  staleWriter = 0;
  held = 0;
  heldPartitions = 0;
  heldBytes = 0;
  holdFull = 0;
  readonly #latencies: number[] = [];

  /** An event took effect whose transaction was committed at `committedMs`. */
  effect(committedMs: number): void {
    this.applied++;
    this.#latencies.push(Date.now() - committedMs);
  }

  /** A partition is held, with so many bytes. */
  holds(bytes: number): void {
    this.heldPartitions++;
    this.heldBytes += bytes;
  }

  report(
    consumer: string,
    failedPartitions: number,
    durationMs: number,
    unmatched: readonly string[] = [],
    paused?: string,
  ): InvocationReport {
    return {
      consumer,
      // The counts are all that an instance shows.
      ...this,
      ...(this.unhandled > 0 && unmatched.length > 0 && { unmatched }),
      failedPartitions,
      commitToEffectMs: this.#latency(),
      durationMs: Math.round(durationMs),
      ...(paused !== undefined && { paused }),
    };
  }

  #latency(): InvocationReport["commitToEffectMs"] {
    if (this.#latencies.length === 0) return null;
    // Of numbers alone: sorted by value, without a call for each pair.
    const sorted = Float64Array.from(this.#latencies).sort();
    const at = (share: number) =>
      sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
    const points = Math.min(SPREAD, sorted.length);
    const spread = Array.from({ length: points }, (_, i) => (points === 1 ? at(1) : at(i / (points - 1))));
    return { p50: at(0.5), p99: at(0.99), max: at(1), spread };
  }
}
