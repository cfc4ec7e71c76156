import type { WriteLine } from "./context.ts";

/**
 * What one invocation did.
 *
 * @example
 * const late = (report: InvocationReport) => (report.commitToEffectMs?.p99 ?? 0) > 10_000;
 */
export interface InvocationReport {
  readonly consumer: string;
  /** Events whose handler succeeded. */
  readonly applied: number;
  /** Events that took effect before, or stand below the floor. */
  readonly duplicates: number;
  /** Events that no handler is registered for. */
  readonly unhandled: number;
  /** Handler calls beyond the first for a change. */
  readonly retried: number;
  readonly deadLettered: number;
  /** Partitions stopped by a gap. */
  readonly gaps: number;
  /** Records of a writer that was superseded. */
  readonly staleWriter: number;
  /** Partitions held by the policy `stop`. */
  readonly held: number;
  /** Partitions that stopped: their records come again. */
  readonly failedPartitions: number;
  /** From commit at the source to the handler's success, milliseconds, over the invocation's events. */
  readonly commitToEffectMs: { readonly p50: number; readonly p99: number; readonly max: number } | null;
  readonly durationMs: number;
}

/**
 * Where reports go: one line an invocation on standard output, unless another is given.
 *
 * @example
 * const observer: ConsumerObserver = { invocation: (report) => metrics.add("applied", report.applied) };
 */
export interface ConsumerObserver {
  invocation(report: InvocationReport): void;
}

/** Writes a report as a JSON line: `{"tributary":"consumer","consumer":…,"applied":…}`. */
export function lineObserver(write: WriteLine): ConsumerObserver {
  return { invocation: (report) => write(JSON.stringify({ tributary: "consumer", ...report })) };
}

/** Counts while an invocation runs. */
export class InvocationCounts {
  applied = 0;
  duplicates = 0;
  unhandled = 0;
  retried = 0;
  deadLettered = 0;
  gaps = 0;
  staleWriter = 0;
  held = 0;
  readonly #latencies: number[] = [];

  /** An event took effect whose transaction was committed at `committedMs`. */
  effect(committedMs: number): void {
    this.applied++;
    this.#latencies.push(Date.now() - committedMs);
  }

  report(consumer: string, failedPartitions: number, durationMs: number): InvocationReport {
    const { applied, duplicates, unhandled, retried, deadLettered, gaps, staleWriter, held } = this;
    return {
      consumer,
      ...{ applied, duplicates, unhandled, retried, deadLettered, gaps, staleWriter, held },
      failedPartitions,
      commitToEffectMs: this.#latency(),
      durationMs: Math.round(durationMs),
    };
  }

  #latency(): InvocationReport["commitToEffectMs"] {
    if (this.#latencies.length === 0) return null;
    const sorted = this.#latencies.sort((a, b) => a - b);
    const at = (share: number) =>
      sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  }
}
