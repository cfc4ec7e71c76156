import * as z from "zod";

/** The part of a mapping's options that rules over failures. */
export interface FailurePolicy {
  readonly reportBatchItemFailures: boolean;
  readonly bisectBatchOnFunctionError: boolean;
  /** -1: for ever. */
  readonly maximumRetryAttempts: number;
}

/** Records `from` (inclusive) to `to` (exclusive) of the batch, to be invoked again, having been retried so often. */
export interface RetriedPart {
  readonly from: number;
  readonly to: number;
  readonly retries: number;
}

/** What follows an invocation. */
export interface Decision {
  /** So many records from the front are done: the checkpoint moves behind them. */
  readonly completed: number;
  /** What comes again, one after the other. */
  readonly retry: readonly RetriedPart[];
  /** The records behind the completed ones go to the on-failure destination, and the shard moves on. */
  readonly discard: boolean;
}

const batchResponse = z.object({
  batchItemFailures: z.array(z.object({ itemIdentifier: z.string().min(1) })).nullish(),
});

/**
 * How many records from the front of the batch a reply reports as done. The lowest reported sequence number is the
 * checkpoint; null, an empty reply and an empty list are complete success; anything unreadable (null or empty
 * identifier, wrong key, a sequence number that is not in the batch) is complete failure: 0.
 * https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
 */
export function completedByReply(reply: unknown, sequenceNumbers: readonly string[]): number {
  if (reply === null || reply === undefined || reply === "") return sequenceNumbers.length;
  const parsed = batchResponse.safeParse(reply);
  if (!parsed.success) return 0;
  const places = new Map(sequenceNumbers.map((sequenceNumber, i) => [sequenceNumber, i]));
  let completed = sequenceNumbers.length;
  for (const { itemIdentifier } of parsed.data.batchItemFailures ?? []) {
    completed = Math.min(completed, places.get(itemIdentifier) ?? 0);
  }
  return completed;
}

/**
 * What to do after an invocation of `size` records that was retried `retries` times, of which it completed the
 * first `completed`.
 *
 * - Bisecting splits at the reported place, or in half where none was reported, and takes nothing from the retries.
 * - A batch that got further starts a new count: its first record has failed once.
 * - Retries used up: all that remains of the batch is discarded.
 */
export function afterInvocation(
  batch: { readonly size: number; readonly retries: number; readonly completed: number },
  policy: FailurePolicy,
): Decision {
  const { size, completed } = batch;
  if (completed === size) return { completed, retry: [], discard: false };
  const progressed = completed > 0;
  const retriesSoFar = progressed ? 0 : batch.retries;
  if (policy.bisectBatchOnFunctionError && progressed) {
    return { completed, retry: [{ from: completed, to: size, retries: 0 }], discard: false };
  }
  if (policy.bisectBatchOnFunctionError && size > 1) {
    const middle = Math.ceil(size / 2);
    const halves = [
      { from: 0, to: middle, retries: retriesSoFar },
      { from: middle, to: size, retries: retriesSoFar },
    ];
    return { completed, retry: halves, discard: false };
  }
  const retries = retriesSoFar + 1;
  if (policy.maximumRetryAttempts >= 0 && retries > policy.maximumRetryAttempts) {
    return { completed, retry: [], discard: true };
  }
  return { completed, retry: [{ from: completed, to: size, retries }], discard: false };
}

/** How many records from the front are older than the maximum age (in seconds; -1: none is); times in milliseconds. */
export function expiredRecords(
  arrivals: readonly { readonly arrivedAt: number }[],
  maximumRecordAgeInSeconds: number,
  now: number,
): number {
  if (maximumRecordAgeInSeconds < 0) return 0;
  const oldest = now - maximumRecordAgeInSeconds * 1000;
  const young = arrivals.findIndex(({ arrivedAt }) => arrivedAt >= oldest);
  return young === -1 ? arrivals.length : young;
}
