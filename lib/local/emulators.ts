import { extname, join } from "node:path";
import * as z from "zod";
import { type ServingChild, startServingChild } from "./child.ts";
import { DIRECTORY_VARIABLE } from "./emulators/directory.ts";
import type { RefusedCall } from "./emulators/limited.ts";

export type { RefusedCall } from "./emulators/limited.ts";

/** Kinesis, DynamoDB and SQS on this machine, each a process of its own, with its state in memory or in a directory. */
export interface Emulators {
  readonly kinesis: ServingChild;
  readonly dynamodb: ServingChild;
  readonly sqs: ServingChild;
  /**
   * Variables that AWS clients read: `AWS_ENDPOINT_URL_*`, `AWS_REGION` and dummy credentials. Code outside this room
   * sees nothing else of the emulators.
   */
  readonly environment: Readonly<Record<string, string>>;
  /** Returns the calls that were refused as AWS refuses them, since it was last asked. */
  takeRefusals(): Promise<readonly RefusedCall[]>;
  stop(): Promise<void>;
}

/** Extension of the files beside this one: TypeScript here, JavaScript where the package is installed. */
const EXTENSION = extname(import.meta.filename);
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

/** Settings of `startEmulators`. */
export interface EmulatorOptions {
  readonly signal?: AbortSignal;
  readonly onRefusal?: (call: RefusedCall) => void;
  /** One has ended by itself; gets which, and the end of what it printed. */
  readonly onEnded?: ((service: string, printed: string) => void) | undefined;
  /** Directory that keeps their content, whatever ends them; left out: in memory. */
  readonly directory?: string | undefined;
}

/**
 * Starts the emulators on 127.0.0.1 and free ports. They end with our process, even with `kill -9`.
 *
 * @throws ChildStartError when one does not come up; the others are ended then.
 */
export async function startEmulators(options: EmulatorOptions = {}): Promise<Emulators> {
  const refusals: RefusedCall[] = [];
  const onReport = (report: unknown) => {
    const call = refusedCall.parse(report);
    options.onRefusal?.(call);
    if (refusals.length < KEPT_REFUSALS) refusals.push(call);
  };
  const start = (service: string) =>
    startServingChild(new URL(`./emulators/${service}${EXTENSION}`, import.meta.url), {
      environment: {
        AWS_REGION: REGION,
        ...(options.directory && { [DIRECTORY_VARIABLE]: join(options.directory, service) }),
      },
      signal: options.signal,
      onReport,
      onEnded: (printed) => options.onEnded?.(service, printed),
    });
  const started = await Promise.allSettled([start("kinesis"), start("dynamodb"), start("sqs")]);
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
