import { setTimeout as sleep } from "node:timers/promises";
import { once } from "./call-retry.ts";
import { type CapturePlace, number, readItem } from "./capture-item.ts";
import { captureKey } from "./state-key.ts";
import { StateTable } from "./state-table.ts";

const POLL_MS = 200;

/** The lease of a slot as it stands in the table. */
export interface StoredLease {
  /** Undefined where nobody holds it. */
  readonly owner: string | undefined;
  readonly generation: number;
  /** Time at which it was renewed last, by its owner's clock, in milliseconds since 1970 UTC. */
  readonly beatAt: number | undefined;
}

/** Reads the lease of a slot; undefined where none was ever taken. @throws StateTableError, StateTableUnavailableError */
export async function readLease(place: CapturePlace): Promise<StoredLease | undefined> {
  const item = await readItem(place);
  if (item?.generation === undefined) return undefined;
  const beatAt = item.beatAt?.N === undefined ? undefined : Number(item.beatAt.N);
  return { owner: item.owner?.S, generation: number(item.generation), beatAt };
}

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
