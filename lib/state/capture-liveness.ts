import { setTimeout as sleep } from "node:timers/promises";
import { once } from "./call-retry.ts";
import type { CapturePlace } from "./capture-item.ts";
import { captureKey } from "./state-key.ts";
import { StateTable } from "./state-table.ts";

const POLL_MS = 200;

/**
 * Returns whether a capture task is alive: its lease is held, and renewed while we look. Answers as soon as it was renewed, which
 * a living task does every third of `leaseMs`; at the latest after `leaseMs`. Takes nothing.
 */
export async function captureIsAlive(
  { dynamodb, table, pipeline, slot, signal }: CapturePlace,
  leaseMs: number,
): Promise<boolean> {
  const state = new StateTable(dynamodb, table, once(signal));
  const read = async (): Promise<string | undefined> => {
    const item = await state.get(captureKey(pipeline, slot));
    return item?.owner?.S === undefined ? undefined : `${item.generation?.N}/${item.beat?.N ?? "0"}`;
  };
  const first = await read();
  const deadline = performance.now() + leaseMs;
  for (let now = first; now !== undefined && performance.now() < deadline; now = await read()) {
    if (now !== first) return true;
    await sleep(POLL_MS, undefined, { signal });
  }
  return false;
}
