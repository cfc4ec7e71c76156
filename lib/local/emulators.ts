import { type ServingChild, startServingChild } from "./child.ts";

/** Kinesis, DynamoDB and SQS on this machine, each a process of its own, all state in memory. */
export interface Emulators {
  readonly kinesis: ServingChild;
  readonly dynamodb: ServingChild;
  readonly sqs: ServingChild;
  /**
   * What AWS clients read: `AWS_ENDPOINT_URL_*`, `AWS_REGION` and dummy credentials. Code outside this room
   * sees nothing else of the emulators.
   */
  readonly environment: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

const REGION = "us-east-1";

/**
 * Starts the emulators on 127.0.0.1 and free ports. They end with our process, even with `kill -9`.
 *
 * @throws ChildStartError when one does not come up; the others are ended then.
 */
export async function startEmulators(options: { signal?: AbortSignal } = {}): Promise<Emulators> {
  const start = (file: string) =>
    startServingChild(new URL(`./emulators/${file}`, import.meta.url), {
      environment: { AWS_REGION: REGION },
      signal: options.signal,
    });
  const started = await Promise.allSettled([start("kinesis.ts"), start("dynamodb.ts"), start("sqs.ts")]);
  const [kinesis, dynamodb, sqs] = started.map((s) => (s.status === "fulfilled" ? s.value : undefined));
  const stop = async () => {
    await Promise.all([kinesis?.stop(), dynamodb?.stop(), sqs?.stop()]);
  };
  if (!kinesis || !dynamodb || !sqs) {
    await stop();
    throw started.find((s) => s.status === "rejected")?.reason;
  }
  return {
    kinesis,
    dynamodb,
    sqs,
    environment: {
      AWS_ENDPOINT_URL_KINESIS: kinesis.endpoint,
      AWS_ENDPOINT_URL_DYNAMODB: dynamodb.endpoint,
      AWS_ENDPOINT_URL_SQS: sqs.endpoint,
      AWS_REGION: REGION,
      AWS_ACCESS_KEY_ID: "local",
      AWS_SECRET_ACCESS_KEY: "local",
    },
    stop,
  };
}
