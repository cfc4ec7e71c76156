import { setTimeout as sleep } from "node:timers/promises";
import { backoffMs, type Random } from "../backoff.ts";
import type { SourceChange } from "../change/change-stream.ts";
import type { ClaimCheck } from "../change/claim-check.ts";
import { type ClaimStore, claimOf, pathSegment } from "../change/claim-store.ts";
import type { PositionText } from "../change/position.ts";
import { unpackedEventTail } from "../change/record.ts";
import { EVERY_PARTITION, type Topic } from "../change/topic.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { failpoint } from "../failpoint.ts";
import { RETRY } from "./limits.ts";
import { ClaimTooLargeError, type OversizeChangeError } from "./stream-errors.ts";
import type { StreamLog } from "./stream-log.ts";

/** A change whose event is stored elsewhere: a pointer stands for it in the stream. */
export interface ClaimedChange {
  readonly kind: "claimed";
  readonly topic: Topic;
  readonly partition: number;
  readonly position: PositionText;
  readonly claim: ClaimCheck;
  /** Table of the change, for metrics: `public.orders`. */
  readonly table: string;
}

/** Gives what is written in the place of a change above the record limit, or throws why nothing can be. */
export type Oversize = (
  change: SourceChange,
  error: OversizeChangeError,
  signal: AbortSignal,
) => SourceChange | Promise<SourceChange | ClaimedChange>;

/** Dependencies of `claimCheck`. */
export interface ClaimCheckOptions {
  readonly store: ClaimStore;
  /** First part of each object's path. */
  readonly pipeline: string;
  /** Generation of the writer, for the object. */
  readonly writer: number;
  readonly log: StreamLog;
  /** Jitter of the backoff. Default: `Math.random`. */
  readonly random?: Random;
}

/**
 * Largest event that is stored: above it a consumer could not read it either. While one is stored, the task holds
 * its text (twice, for it is closed) and its bytes.
 */
export const MAX_CLAIM_BYTES = 256 * 1024 * 1024;

/** An attempt may take so long, and a millisecond more for each KiB. */
const ATTEMPT_MS = 30_000;
const FAILURE_LOG_MS = 10_000;

/**
 * Claim check: stores the event, and gives the pointer when it is durable. What may pass is retried until `signal`
 * aborts, with backoff; the source waits meanwhile, because the order of its commits is the order of the stream.
 *
 * The object is the event as a record of its own (`packing: "none"`), its predecessor not yet known.
 *
 * @throws ClaimTooLargeError, ClaimStoreRefusedError; the change's own error for one that goes to every partition.
 */
export function claimCheck({
  store,
  pipeline,
  writer,
  log,
  random = Math.random,
}: ClaimCheckOptions): Oversize {
  return async (change, error, signal) => {
    const { topic, partition, position, table } = change;
    if (partition === EVERY_PARTITION) throw error;
    if (error.bytes > MAX_CLAIM_BYTES) throw new ClaimTooLargeError(error, MAX_CLAIM_BYTES);
    const tail = unpackedEventTail(null, { topic: topic.name, partition, writer });
    const bytes = Buffer.from(change.json + tail);
    const path = [pipeline, topic.name, String(partition), position].map(pathSegment).join("/");
    const claim = claimOf(store, path, bytes);
    let loggedAt = Number.NEGATIVE_INFINITY;
    for (let failures = 1; ; failures++) {
      try {
        await store.put(claim, bytes, AbortSignal.any([signal, deadline(bytes.length)]));
        break;
      } catch (failure) {
        signal.throwIfAborted();
        if (!(failure instanceof TributaryError) || failure.retry !== "retry") throw failure;
        const now = performance.now();
        if (now - loggedAt >= FAILURE_LOG_MS) {
          loggedAt = now;
          log.warn("The claim store did not take a change; retrying", {
            code: failure.code,
            position,
            failures,
          });
        }
      }
      await sleep(backoffMs(failures, RETRY, random), undefined, { signal });
    }
    failpoint("claim-stored");
    return { kind: "claimed", topic, partition, position, table, claim };
  };
}

function deadline(bytes: number): AbortSignal {
  return AbortSignal.timeout(ATTEMPT_MS + Math.ceil(bytes / 1024));
}
