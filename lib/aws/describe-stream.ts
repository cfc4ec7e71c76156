import { DescribeStreamSummaryCommand, type StreamDescriptionSummary } from "@aws-sdk/client-kinesis";
import { type Environment, kinesisClient } from "./clients.ts";

/** Describes a Kinesis stream by one call. @throws what the SDK throws */
export async function describeStreamSummary(
  environment: Environment,
  name: string,
  signal: AbortSignal,
): Promise<StreamDescriptionSummary | undefined> {
  const client = kinesisClient(environment);
  try {
    const command = new DescribeStreamSummaryCommand({ StreamName: name });
    const { StreamDescriptionSummary: found } = await client.send(command, { abortSignal: signal });
    return found;
  } finally {
    client.destroy();
  }
}
