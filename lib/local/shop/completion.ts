import { setTimeout as delay } from "node:timers/promises";
import type { LocalHost } from "../host.ts";

/** The tables of the shop that each example consumer follows: each table has one. */
export const SHOP_CONSUMERS: Readonly<Record<string, readonly string[]>> = {
  "order-summary": ["public.orders", "public.order_items"],
  "customer-view": ["public.customers"],
  notifications: ["public.cancellations"],
};

const POLL_MS = 20;
const STALLED_MS = 60_000;

/** Change events that took effect, over all consumers. */
export function appliedBy(host: LocalHost): number {
  return host.consumers.reduce((sum, { counts }) => sum + counts.applied, 0);
}

/**
 * Waits until every consumer has come to the end of what was published, and that is everything; gives the time (of `performance.now`) of the last effect. Gives up, with what there is, after a minute without progress.
 */
export async function completion(
  host: LocalHost,
  changes: number,
  signal: AbortSignal,
): Promise<{ readonly lastEffectMs: number; readonly complete: boolean }> {
  let lastEffectMs = performance.now();
  let progressMs = performance.now();
  let seen = "";
  let applied = 0;
  for (;;) {
    const now = performance.now();
    const latest = appliedBy(host);
    if (latest > applied) lastEffectMs = now;
    applied = latest;
    if (isThrough(host, changes)) return { lastEffectMs, complete: true };
    const counts = JSON.stringify([host.capture.figures.changes, host.consumers.map((c) => c.counts)]);
    if (counts !== seen) progressMs = now;
    seen = counts;
    if (now - progressMs > STALLED_MS) return { lastEffectMs, complete: false };
    await delay(POLL_MS, undefined, { signal });
  }
}

/** Whether everything was published, and every consumer has handled all that was published of its tables. */
function isThrough(host: LocalHost, changes: number): boolean {
  const { tables, changes: published } = host.capture.figures;
  if (published < changes) return false;
  return host.consumers.every(({ name, counts }) => {
    const expected = (SHOP_CONSUMERS[name] ?? []).reduce((sum, table) => sum + (tables[table] ?? 0), 0);
    return counts.applied + counts.unhandled + counts.deadLettered >= expected;
  });
}
