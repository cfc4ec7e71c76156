import { defineError } from "../change/tributary-error.ts";

/** One change is larger than a Kinesis record may be. It was not taken: nothing behind it is written either. */
export class OversizeChangeError extends defineError("OVERSIZE_CHANGE", "stop").from(
  (facts: { table: string; position: string; bytes: number; maxRecordBytes: number }) => ({
    message: `A change of ${facts.table} at ${facts.position} makes a record of ${facts.bytes} bytes, above the stream's limit of ${facts.maxRecordBytes}`,
    remedy:
      'Name a bucket for such changes (TRIBUTARY_CLAIM_BUCKET=s3://…), or write stream.oversize: "omit" into the definition (largest columns are left out and listed), or leave the large column out for good (source.excludeColumns). The change stays in the slot and comes again after the restart.',
    table: facts.table,
    position: facts.position,
    /** Size of a record of this change alone, partition key included. */
    bytes: facts.bytes,
    maxRecordBytes: facts.maxRecordBytes,
  }),
) {}

/** One change is larger than a consumer could read, with or without the stream. Nothing behind it is written. */
export class ClaimTooLargeError extends defineError("CLAIM_TOO_LARGE", "stop").from(
  ({ table, position, bytes }: OversizeChangeError, maxBytes: number) => ({
    message: `A change of ${table} at ${position} has ${bytes} bytes, above the limit of ${maxBytes} for a change in the claim store`,
    remedy:
      'Write stream.oversize: "omit" into the definition (largest columns are left out and listed), or leave the large column out for good (source.excludeColumns). The change stays in the slot and comes again after the restart.',
  }),
) {}

/** A topic's name leaves no room for the partition in the 256 characters of a Kinesis partition key. */
export class PartitionKeyTooLongError extends defineError("PARTITION_KEY_TOO_LONG", "stop").from(
  (topic: string, characters: number) => ({
    message: `The topic ${topic} makes a partition key of ${characters} characters, above Kinesis' limit of 256`,
    remedy: "Give the table a shorter topic: topics.routes or topics.prefix in the definition.",
  }),
) {}

/** The stream does not exist, or is being deleted. */
export class StreamNotFoundError extends defineError("STREAM_NOT_FOUND", "stop").from(
  (streamName: string, cause: unknown) => ({
    message: `The Kinesis stream ${streamName} does not exist in this account and region`,
    remedy:
      "Create the stream (cdk deploy), or correct its name, the region or the account, and start again.",
    cause,
  }),
) {}

/** AWS refuses the capture task's credentials, or they do not permit to write or read the stream (or its KMS key). */
export class StreamAccessError extends defineError("STREAM_ACCESS", "stop").from(
  (streamName: string, awsCode: string, cause: unknown, to: "write to" | "read" = "write to") => {
    const [ofStream, ofKey] =
      to === "read"
        ? [
            "kinesis:DescribeStreamSummary, kinesis:ListShards, kinesis:GetShardIterator and kinesis:GetRecords",
            "kms:Decrypt",
          ]
        : ["kinesis:PutRecords", "kms:GenerateDataKey"];
    return {
      message: `AWS refuses to let this task ${to} the Kinesis stream ${streamName}: ${awsCode}`,
      remedy: `Permit the task's role ${ofStream} on the stream and, where the stream is encrypted, ${ofKey} on its key (which must be enabled), then start again.`,
      cause,
    };
  },
) {}

/** The records that the task before left in the stream cannot be read, and without them nothing may be written. */
export class StreamTailError extends defineError("STREAM_TAIL", "restart").from(
  (streamName: string, failure: string, cause: unknown) => ({
    message: `The end of the Kinesis stream ${streamName} cannot be read: ${failure}; the task before ended without a word, and what it wrote has to be compared with the server first`,
    remedy:
      "Nothing to do when it passes. When it repeats, look at the way to Kinesis and at who else reads the stream.",
    cause,
  }),
) {}

/** The stream cannot be read, and without it nobody knows where a new consumer with `startAt` begins. */
export class StreamReadError extends defineError("STREAM_READ", "restart").from(
  (streamName: string, failure: string, cause: unknown) => ({
    message: `The Kinesis stream ${streamName} cannot be read: ${failure}; a new consumer's start (startAt) is looked for in it`,
    remedy:
      "Nothing to do when it passes. When it repeats, look at the way to Kinesis and at who else reads the stream; or take startAt out of the definition, and the consumer begins now.",
    cause,
  }),
) {}

/** Kinesis calls a request of ours invalid: sending it again would fail the same way. */
export class StreamRequestError extends defineError("STREAM_REQUEST", "stop").from(
  (streamName: string, awsCode: string, cause: unknown) => ({
    message: `Kinesis refuses a PutRecords request to the stream ${streamName} as invalid: ${awsCode}`,
    remedy:
      "Compare stream.maxRecordBytes of the definition with the stream's own record limit (DescribeStreamSummary, MaxRecordSizeInKiB); if they fit, report this as a defect. Nothing was confirmed to the source.",
    cause,
  }),
) {}

/** The Kinesis client was made with retries of its own: the writer alone may retry. */
export class ClientRetriesError extends defineError("CLIENT_RETRIES", "stop").from((maxAttempts: number) => ({
  message: `The Kinesis client makes up to ${maxAttempts} attempts a request`,
  remedy: "Make the client with maxAttempts: 1 (kinesisClient in lib/aws/clients.ts does).",
})) {}
