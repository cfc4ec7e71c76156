import { setTimeout as delay } from "node:timers/promises";
import type { LocalHost } from "../host.ts";

/** The tables of the shop that each example consumer follows: each table has one. */
export const SHOP_CONSUMERS: Readonly<Record<string, readonly string[]>> = {
  "order-summary": ["public.orders", "public.order_items"],
  "customer-view": ["public.customers"],
  notifications: ["public.cancellations", "outbox.order"],
};

const POLL_MS = 20;
const QUIET_MS = 3_000;
const STALLED_MS = 60_000;

/** The amount of work that `completion` waits for. */
export interface Workdone {
  /** Change events that must be published. */
  readonly changes: number;
  /** End of the log when the last of them was committed; undefined where the log is not read. */
  readonly endLsn: bigint | undefined;
}

/** Change events that took effect, over all consumers. */
export function appliedBy(host: LocalHost): number {
  return host.consumers.reduce((sum, { counts }) => sum + counts.applied, 0);
}

/**
 * Waits until everything was published and every consumer is through with it; gives the time (of `performance.now`) of
 * the last effect. Gives up, with what there is, after a minute in which nothing moved.
 */
export async function completion(
  host: LocalHost,
  work: Workdone,
  signal: AbortSignal,
): Promise<{ readonly lastEffectMs: number; readonly complete: boolean }> {
  let lastEffectMs = performance.now();
  let lastMoveMs = performance.now();
  let seen = "";
  let applied = 0;
  for (;;) {
    const now = performance.now();
    if (appliedBy(host) > applied) lastEffectMs = now;
    applied = appliedBy(host);
    const { changes: published } = host.capture.figures;
    const counts = JSON.stringify([published, host.consumers.map((c) => c.counts)]);
    if (counts !== seen) lastMoveMs = now;
    seen = counts;
    const quietMs = now - lastMoveMs;
    if (countsAddUp(host, work) || (quietMs > QUIET_MS && nothingIsLeft(host, work))) {
      return { lastEffectMs, complete: true };
    }
    if (quietMs > STALLED_MS) return { lastEffectMs, complete: false };
    await delay(POLL_MS, undefined, { signal });
  }
}

/** Every consumer has reported all changes of its tables: so it is when no process was killed on the way. */
function countsAddUp(host: LocalHost, { changes }: Workdone): boolean {
  const { tables, changes: published, restarts } = host.capture.figures;
  if (published < changes || restarts > 0) return false;
  return host.consumers.every(({ name, counts }) => {
    const expected = (SHOP_CONSUMERS[name] ?? []).reduce((sum, table) => sum + (tables[table] ?? 0), 0);
    return counts.applied + counts.unhandled + counts.deadLettered + counts.parkedBehind >= expected;
  });
}

/** The log was read to where the workload ended, and the stream to its end: a killed process's counts are lost. */
function nothingIsLeft(host: LocalHost, { endLsn }: Workdone): boolean {
  const { acknowledgedLsn } = host.capture.figures;
  const read = endLsn === undefined || (acknowledgedLsn !== undefined && acknowledgedLsn >= endLsn);
  return read && host.consumers.every((c) => c.isIdle());
}
