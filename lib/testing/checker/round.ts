/** Work and faults of one round. */
export interface Play {
  /** Commits changes at least until the signal aborts. */
  readonly workload: (until: AbortSignal) => Promise<unknown>;
  /** Breaks things; whatever it broke must be whole when it resolves. */
  readonly faults?: (() => Promise<unknown>) | undefined;
  /** Runs beside both until the signal aborts. */
  readonly beside?: (until: AbortSignal) => Promise<unknown>;
}

/**
 * Runs workload and faults side by side. The workload is told when the faults have ended; recovery is measured from that
 * moment, which is returned as a time of `performance.now`.
 */
export async function playRound({ workload, faults, beside }: Play): Promise<number> {
  const faultsEnded = new AbortController();
  const until = faultsEnded.signal;
  let endedAt = performance.now();
  const inject = async () => {
    try {
      await faults?.();
    } finally {
      endedAt = performance.now();
      faultsEnded.abort();
    }
  };
  await Promise.all([workload(until), inject(), beside?.(until)]);
  return endedAt;
}
