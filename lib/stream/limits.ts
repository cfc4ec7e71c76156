import type { Backoff } from "../backoff.ts";

/** Most that a stream takes: sizes in bytes. */
export interface RecordLimits {
  /** Largest record: data and partition key. */
  readonly maxRecordBytes: number;
  /** Largest request: data and partition keys of its entries. */
  readonly requestBytes: number;
  /** Most entries of a request. */
  readonly requestRecords: number;
}

/** Bounds of a run of the writer: sizes in bytes. */
export interface StreamLimits extends RecordLimits {
  /** Size at which a record stops growing although events wait. */
  readonly targetRecordBytes: number;
  /** Most requests under way at once; their partitions are disjoint. */
  readonly requestsInFlight: number;
  /**
   * Above this the source is not pulled; below half of it, again. What one pull gave is always taken, so the
   * buffer holds at most this and one batch of the source. Counted as the memory that the records take.
   */
  readonly bufferBytes: number;
  /** Time after which a request without an answer is given up and its entries are sent again, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Time that the writer may take to store what it holds once it was told to stop, in milliseconds. */
  readonly drainMs: number;
}

/** Our own bounds, whatever the stream. */
export const RUN_LIMITS: Omit<StreamLimits, keyof RecordLimits> = {
  targetRecordBytes: 256 * 1024,
  requestsInFlight: 8,
  bufferBytes: 32 * 1024 * 1024,
  requestTimeoutMs: 15_000,
  drainMs: 20_000,
};

/** Backoff of a partition after failures in a row, and of a claim store. */
export const RETRY: Backoff = { baseMs: 50, capMs: 5_000 };

/** Most characters of a partition key. https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html */
export const MAX_PARTITION_KEY_CHARACTERS = 256;
