import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { ChangeStream } from "../../lib/change/change-stream.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { KINESIS_LIMITS } from "../../lib/stream/kinesis/kinesis-writer.ts";
import { RUN_LIMITS, type StreamLimits } from "../../lib/stream/limits.ts";
import { type StreamWriterOptions, writeStream } from "../../lib/stream/stream-writer.ts";

/** What a writer to Kinesis keeps to where nothing else is said. */
export const DEFAULT_LIMITS: StreamLimits = { ...RUN_LIMITS, ...KINESIS_LIMITS };

/** What a stream is written with, and which. */
export interface KinesisOptions extends StreamWriterOptions {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
}

/** `writeStream` to a stream of Kinesis. */
export async function writeKinesis(
  source: ChangeStream,
  { kinesis, streamName, ...options }: KinesisOptions,
  signal: AbortSignal,
): Promise<void> {
  await writeStream(source, await kinesisStream(kinesis, streamName).writer(), options, signal);
}
