import { setTimeout as sleep } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../../backoff.ts";
import { type ClaimStore, claimOf, pathSegment } from "../../../change/claim-store.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { formatSegment, type HeldChange } from "./held-change.ts";
import type { HoldSegment } from "./hold-record.ts";

/** Where the changes of held topics are stored. */
export interface SpillPlace {
  readonly store: ClaimStore;
  readonly pipeline: string;
  /** The capture lease: two tasks never write the same object. */
  readonly generation: number;
}

const RETRY: Backoff = { baseMs: 100, capMs: 5_000 };

/**
 * Stores changes of a topic as one object; durable when it resolves. What may pass is tried again until `signal` aborts.
 * @throws ClaimStoreRefusedError, and what the store threw last when the signal aborted.
 */
export async function storeSegment(
  { store, pipeline, generation }: SpillPlace,
  topic: string,
  index: number,
  changes: readonly [HeldChange, ...HeldChange[]],
  signal: AbortSignal,
): Promise<HoldSegment> {
  const bytes = formatSegment(changes);
  const path = [pipeline, "held", topic, `${index}-${generation}`].map(pathSegment).join("/");
  const claim = claimOf(store, path, bytes);
  const { position } = changes.at(-1) as HeldChange;
  for (let failures = 1; ; failures++) {
    try {
      await store.put(claim, bytes, signal);
      return { claim, changes: changes.length, last: position };
    } catch (error) {
      if (signal.aborted || !(error instanceof TributaryError) || error.retry !== "retry") throw error;
      await sleep(backoffMs(failures, RETRY), undefined, { signal });
    }
  }
}
