import type { RecordLimits } from "./limits.ts";
import type { Entry } from "./partition-queue.ts";

/** Entries to send in one request: at most one of a partition. Give it back by `settle` or `fail`. */
export interface PutRequest {
  readonly entries: readonly Entry[];
  readonly bytes: number;
}

/** Result of an entry: `failed` and `throttled` ones are sent again. */
export type EntryResult = "stored" | "failed" | "throttled";

/** Result of a request: one for each entry, or a failure of the whole that is to be retried. */
export type PutOutcome =
  | { readonly kind: "answered"; readonly results: readonly EntryResult[]; readonly code?: string }
  | { readonly kind: "failed"; readonly result: "failed" | "throttled"; readonly code: string };

/** A shard that takes records, and a hash key that lies in it. */
export interface OpenShard {
  readonly shardId: string;
  readonly hashKey: string;
}

/**
 * Puts records into a stream, one attempt a request; order, retries and acknowledgements are `writeStream`'s. Kinesis is one
 * (kinesis/).
 */
export interface RecordWriter {
  /** Most that the stream takes. A setting of the run may be below it. */
  readonly limits: RecordLimits;
  /**
   * Sends the request once. Failures that may pass and the signal's abort are outcomes.
   *
   * `mayWrite` is asked once more when the request is ready to go, since that may have taken time; where it says no, nothing
   * is sent, and the outcome is a failure.
   *
   * @throws TributaryError when the request would fail the same way again.
   */
  put(request: PutRequest, signal: AbortSignal, mayWrite?: () => boolean): Promise<PutOutcome>;
  /** Lists the shards that take records now: each gets a beat. @throws what the stream answers. */
  openShards(signal: AbortSignal): Promise<readonly OpenShard[]>;
}
