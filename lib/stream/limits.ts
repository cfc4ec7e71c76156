/** Bounds of the writer: sizes in bytes. */
export interface StreamLimits {
  /** Largest record the stream takes: data and partition key. */
  readonly maxRecordBytes: number;
  /** Where a record stops growing although events wait. */
  readonly targetRecordBytes: number;
  /** Largest PutRecords request: data and partition keys of its entries. */
  readonly requestBytes: number;
  /** Most entries of a PutRecords request. */
  readonly requestRecords: number;
  /** Most requests under way at once; their partitions are disjoint. */
  readonly requestsInFlight: number;
  /**
   * Above this the source is not pulled; below half of it, again. What one pull gave is always taken, so the
   * buffer holds at most this and one batch of the source. Counted as the memory that the records take.
   */
  readonly bufferBytes: number;
  /** When a request without an answer is given up and its entries are sent again, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** How long, once it was told to stop, the writer may take to store what it holds, in milliseconds. */
  readonly drainMs: number;
}

/**
 * Kinesis' own limits and our bounds.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
 */
export const DEFAULT_LIMITS: StreamLimits = {
  maxRecordBytes: 1024 * 1024,
  targetRecordBytes: 256 * 1024,
  requestBytes: 5 * 1024 * 1024,
  requestRecords: 500,
  requestsInFlight: 8,
  bufferBytes: 32 * 1024 * 1024,
  requestTimeoutMs: 15_000,
  drainMs: 20_000,
};

/** Most characters of a partition key. https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html */
export const MAX_PARTITION_KEY_CHARACTERS = 256;
