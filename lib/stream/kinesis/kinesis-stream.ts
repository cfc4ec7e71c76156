import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { RecordStream } from "../record-stream.ts";
import { KinesisWriter } from "./kinesis-writer.ts";
import { findStart, streamExtent } from "./stream-start.ts";
import { readTail } from "./stream-tail.ts";

/**
 * A Kinesis stream as the capture task's. The client must be made with `maxAttempts: 1`: the ordered writer alone retries
 * (rule 6); `writer` throws ClientRetriesError where it is not.
 */
export function kinesisStream(kinesis: KinesisClient, streamName: string): RecordStream {
  return {
    writer: () => KinesisWriter.open(kinesis, streamName),
    readTail: (query) => readTail({ ...query, kinesis, streamName }),
    extent: (signal) => streamExtent({ kinesis, streamName, signal }),
    findStart: (query) => findStart({ ...query, kinesis, streamName }),
  };
}
