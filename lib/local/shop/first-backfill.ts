import { setTimeout as delay } from "node:timers/promises";
import type { Pipeline } from "../../definition/definition.ts";
import { sourceKind } from "../../source/index.ts";
import { hasEnded, readBackfills } from "../../state/backfills.ts";
import type { LocalAws } from "../host.ts";

const DEADLINE_MS = 60_000;
const POLL_MS = 50;

/**
 * Waits until the tables were backfilled, so that what a workload commits from here on arrives once: as a change. Goes on after a
 * minute without that.
 */
export async function firstBackfill(definition: Pipeline, aws: LocalAws, signal: AbortSignal): Promise<void> {
  if (!sourceKind(definition.source).readsExisting(definition.source)) return;
  const store = {
    dynamodb: aws.clients.dynamodb,
    table: aws.resources.stateTable,
    pipeline: definition.name,
    signal,
  };
  const deadline = performance.now() + DEADLINE_MS;
  while (performance.now() < deadline) {
    const backfills = await readBackfills(store);
    if (backfills.length > 0 && backfills.every(hasEnded)) return;
    await delay(POLL_MS, undefined, { signal });
  }
}
