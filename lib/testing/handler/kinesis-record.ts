import type { KinesisStreamRecord } from "aws-lambda";

let sequence = 1;

/** Returns a record as Lambda hands it over; each has a greater sequence number than the one before. */
export function kinesisRecord(data: string | Uint8Array, partitionKey: string): KinesisStreamRecord {
  const sequenceNumber = String(sequence++).padStart(20, "0");
  return {
    kinesis: {
      kinesisSchemaVersion: "1.0",
      partitionKey,
      sequenceNumber,
      data: Buffer.from(data).toString("base64"),
      approximateArrivalTimestamp: Date.now() / 1000,
    },
    eventSource: "aws:kinesis",
    eventVersion: "1.0",
    eventID: `shardId-000000000000:${sequenceNumber}`,
    eventName: "aws:kinesis:record",
    invokeIdentityArn: "arn:aws:iam::000000000000:role/test",
    awsRegion: "us-east-1",
    eventSourceARN: "arn:aws:kinesis:us-east-1:000000000000:stream/test",
  };
}
