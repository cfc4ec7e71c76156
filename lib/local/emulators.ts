import * as z from "zod";
import { type ServingChild, startServingChild } from "./child.ts";
import type { RefusedCall } from "./emulators/limited.ts";

export type { RefusedCall } from "./emulators/limited.ts";

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
  /** Returns the calls that were refused as AWS refuses them, since it was last asked. */
  takeRefusals(): Promise<readonly RefusedCall[]>;
  stop(): Promise<void>;
}

const REGION = "us-east-1";
/** Refused calls that are kept until somebody asks. */
const KEPT_REFUSALS = 100;

const refusedCall = z.object({
  service: z.string(),
  operation: z.string(),
  code: z.string(),
  message: z.string(),
  page: z.string().optional(),
});

/** One refused call as a line. */
export function refusedText({ service, operation, code, message, page }: RefusedCall): string {
  return `AWS refuses this call: ${service} ${operation}: ${code}: ${message}${page ? ` (${page})` : ""}`;
}

/**
 * Starts the emulators on 127.0.0.1 and free ports. They end with our process, even with `kill -9`.
 *
 * @throws ChildStartError when one does not come up; the others are ended then.
 */
export async function startEmulators(
  options: { signal?: AbortSignal; onRefusal?: (call: RefusedCall) => void } = {},
): Promise<Emulators> {
  const refusals: RefusedCall[] = [];
  const onReport = (report: unknown) => {
    const call = refusedCall.parse(report);
    options.onRefusal?.(call);
    if (refusals.length < KEPT_REFUSALS) refusals.push(call);
  };
  const start = (file: string) =>
    startServingChild(new URL(`./emulators/${file}`, import.meta.url), {
      environment: { AWS_REGION: REGION },
      signal: options.signal,
      onReport,
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
    async takeRefusals() {
      await Promise.all([kinesis.settled(), dynamodb.settled(), sqs.settled()]);
      return refusals.splice(0);
    },
    stop,
  };
}
