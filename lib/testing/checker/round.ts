import { setTimeout as delay } from "node:timers/promises";

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

/** Limits of a wait for a condition. */
export interface Waiting {
  readonly deadlineMs: number;
  /** Time between two looks. Default 50 ms. */
  readonly everyMs?: number;
  /** Ends the wait early, without success: the condition cannot come true any more. */
  readonly hopeless?: () => boolean;
}

/** Looks until the condition holds; returns whether it did before the deadline. The condition is looked at once at least. */
export async function holdsWithin(
  condition: () => boolean | Promise<boolean>,
  { deadlineMs, everyMs = 50, hopeless = () => false }: Waiting,
): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > deadline || hopeless()) return false;
    await delay(everyMs);
  }
  return true;
}

/** Waits until the condition holds. @throws Error with the name of it and these lines, where it does not in time. */
export async function waitUntil(
  what: string,
  condition: () => boolean | Promise<boolean>,
  waiting: Waiting & { readonly explain: () => readonly string[] },
): Promise<void> {
  if (await holdsWithin(condition, waiting)) return;
  throw new Error(`waited for this without success: ${what}\n${waiting.explain().join("\n")}`);
}
