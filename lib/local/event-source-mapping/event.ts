import type { _Record } from "@aws-sdk/client-kinesis";
import type { KinesisStreamRecord } from "aws-lambda";

/** The ARNs that all records of a mapping share. */
export interface EventOrigin {
  readonly streamArn: string;
  /** ARN of the role that the function runs as. */
  readonly roleArn: string;
}

/** A record that waits for its invocation. */
export interface QueuedRecord {
  /** As the handler gets it. */
  readonly event: KinesisStreamRecord;
  /** Its share of the invocation's payload: bytes of `event` as JSON and the comma behind it. */
  readonly payloadBytes: number;
  /** Time of its read, in milliseconds of `performance.now()`: the batching window counts from here. */
  readonly queuedAt: number;
}

/** Bytes of the payload that are not records: `{"Records":[]}`. */
export const ENVELOPE_BYTES = '{"Records":[]}'.length;

/**
 * A Kinesis record in the shape Lambda gives it to a handler.
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
 */
export function queuedRecord(origin: EventOrigin, shardId: string, record: _Record): QueuedRecord {
  const { SequenceNumber = "", PartitionKey = "", Data = new Uint8Array() } = record;
  const data = Buffer.from(Data.buffer, Data.byteOffset, Data.byteLength).toString("base64");
  const event: KinesisStreamRecord = {
    kinesis: {
      kinesisSchemaVersion: "1.0",
      partitionKey: PartitionKey,
      sequenceNumber: SequenceNumber,
      data: "",
      approximateArrivalTimestamp: (record.ApproximateArrivalTimestamp?.getTime() ?? Date.now()) / 1000,
    },
    eventSource: "aws:kinesis",
    eventVersion: "1.0",
    eventID: `${shardId}:${SequenceNumber}`,
    eventName: "aws:kinesis:record",
    invokeIdentityArn: origin.roleArn,
    awsRegion: origin.streamArn.split(":")[3] ?? "",
    eventSourceARN: origin.streamArn,
  };
  // base64 needs no escapes in JSON, so the rest is measured without it.
  const payloadBytes = Buffer.byteLength(JSON.stringify(event), "utf8") + data.length + 1;
  event.kinesis.data = data;
  return { event, payloadBytes, queuedAt: performance.now() };
}
