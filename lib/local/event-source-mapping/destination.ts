import { randomUUID } from "node:crypto";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SendMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";
import type { KinesisStreamEvent } from "aws-lambda";
import type { EventOrigin, QueuedRecord } from "./event.ts";

/** Why a batch was given up. */
export type DiscardCondition = "RetryAttemptsExhausted" | "RecordAgeExceeded";

/**
 * What an on-failure destination is told about a discarded batch: where the records stand, not what they hold.
 * https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
 */
export interface InvocationRecord {
  readonly requestContext: {
    readonly requestId: string;
    readonly functionArn: string;
    readonly condition: DiscardCondition;
    readonly approximateInvokeCount: number;
  };
  /** Left out when the batch was never invoked; `functionError` when the handler replied with its failures. */
  readonly responseContext?: {
    readonly statusCode: 200;
    readonly executedVersion: "$LATEST";
    readonly functionError?: "Unhandled";
  };
  readonly version: "1.0";
  readonly timestamp: string;
  readonly KinesisBatchInfo: {
    readonly shardId: string;
    readonly startSequenceNumber: string;
    readonly endSequenceNumber: string;
    readonly approximateArrivalOfFirstRecord: string;
    readonly approximateArrivalOfLastRecord: string;
    readonly batchSize: number;
    readonly streamArn: string;
  };
}

/** Takes discarded batches. When it refuses, the mapping tries again: the shard does not move on before. */
export interface FailureDestination {
  send(record: InvocationRecord, event: KinesisStreamEvent): Promise<void>;
}

/** A batch that was given up, and how its invocations went. */
export interface DiscardedBatch {
  readonly shardId: string;
  readonly functionArn: string;
  readonly condition: DiscardCondition;
  readonly records: readonly QueuedRecord[];
  readonly invocations: number;
  /** Of the last invocation, where there was one. */
  readonly last?: { readonly requestId: string; readonly ok: boolean } | undefined;
}

/** The invocation record of a discarded batch. */
export function invocationRecord(origin: EventOrigin, batch: DiscardedBatch): InvocationRecord {
  const first = batch.records[0] as QueuedRecord;
  const final = batch.records.at(-1) as QueuedRecord;
  return {
    requestContext: {
      requestId: batch.last?.requestId ?? randomUUID(),
      functionArn: batch.functionArn,
      condition: batch.condition,
      approximateInvokeCount: batch.invocations,
    },
    ...(batch.last && {
      responseContext: {
        statusCode: 200,
        executedVersion: "$LATEST",
        ...(!batch.last.ok && { functionError: "Unhandled" }),
      },
    }),
    version: "1.0",
    timestamp: new Date().toISOString(),
    KinesisBatchInfo: {
      shardId: batch.shardId,
      startSequenceNumber: first.event.kinesis.sequenceNumber,
      endSequenceNumber: final.event.kinesis.sequenceNumber,
      approximateArrivalOfFirstRecord: new Date(first.arrivedAt).toISOString(),
      approximateArrivalOfLastRecord: new Date(final.arrivedAt).toISOString(),
      batchSize: batch.records.length,
      streamArn: origin.streamArn,
    },
  };
}

/** An SQS queue: gets the metadata alone, as from AWS. */
export function sqsDestination(sqs: SQSClient, queueUrl: string): FailureDestination {
  return {
    async send(record) {
      await sqs.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: JSON.stringify(record) }));
    },
  };
}

/**
 * A directory in the place of an S3 bucket: one file a discarded batch, under the key AWS gives it, holding the metadata and the
 * whole event as text in `payload`.
 */
export function directoryDestination(directory: string): FailureDestination {
  const mapping = randomUUID();
  return {
    async send(record, event) {
      const [day = "", time = ""] = record.timestamp.split("T");
      const object = `${day}T${time.slice(0, 8).replaceAll(":", ".")}-${randomUUID()}`;
      const key = join("aws/lambda", mapping, record.KinesisBatchInfo.shardId, ...day.split("-"), object);
      const path = join(directory, key);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(`${path}.part`, JSON.stringify({ ...record, payload: JSON.stringify(event) }));
      await rename(`${path}.part`, path);
    },
  };
}
