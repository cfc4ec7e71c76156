import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { dynamodbClient, kinesisClient, sqsClient } from "../aws/clients.ts";
import { CLAIM_BUCKET_VARIABLE } from "../claim-check/open-claim-store.ts";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import { SLOT_VARIABLE } from "../source/postgres/slots/slot-number.ts";
import { CaptureProcess } from "./capture-process.ts";
import { CaptureProcesses } from "./capture-processes.ts";
import { type RunningConsumer, startConsumer } from "./consumer-host.ts";
import { type Emulators, type RefusedCall, startEmulators } from "./emulators.ts";
import { type AwsClients, createResources, type PipelineResources } from "./resources.ts";

/** The AWS side of a pipeline on this machine: emulators, and in them what the CDK app would have made. */
export interface LocalAws {
  readonly clients: AwsClients;
  readonly environment: Readonly<Record<string, string>>;
  readonly resources: PipelineResources;
  stop(): Promise<void>;
}

/** A pipeline that runs on this machine. */
export interface LocalHost {
  readonly capture: CaptureProcesses;
  readonly consumers: readonly RunningConsumer[];
  /** Drains capture, then consumers. Idempotent. */
  stop(): Promise<void>;
}

/** Settings of `startLocalHost`. */
export interface LocalHostOptions {
  readonly definition: Pipeline;
  /** The file the definition was read from: the capture task reads it again. */
  readonly definitionFile: string;
  readonly databaseUrl: string;
  readonly aws: LocalAws;
  /** More variables of the capture task (how to reach the database) and of the handlers (what they read). */
  readonly captureEnvironment?: Readonly<Record<string, string>>;
  readonly handlerEnvironment?: Readonly<Record<string, string>>;
  readonly onLog: (line: string) => void;
  /** A part has ended for good. */
  readonly onFailure: (error: Error) => void;
}

/**
 * Starts the emulators and makes the pipeline's stream, table and queues in them. `onRefusal` gets each call that AWS
 * would refuse, and that was refused for it.
 */
export async function startLocalAws(
  definition: Pipeline,
  signal: AbortSignal,
  onRefusal?: (call: RefusedCall) => void,
): Promise<LocalAws> {
  const emulators: Emulators = await startEmulators({ signal, ...(onRefusal ? { onRefusal } : {}) });
  // A directory stands for the bucket of oversize changes.
  const claims = await mkdtemp(join(tmpdir(), "tributary-claims-"));
  const environment = { ...emulators.environment, [CLAIM_BUCKET_VARIABLE]: pathToFileURL(claims).href };
  const clients = {
    kinesis: kinesisClient(environment),
    dynamodb: dynamodbClient(environment),
    sqs: sqsClient(environment),
  };
  const stop = async () => {
    for (const client of Object.values(clients)) client.destroy();
    await emulators.stop();
    await rm(claims, { recursive: true, force: true });
  };
  try {
    return { clients, environment, resources: await createResources(definition, clients), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * Starts the consumers and the capture task of a pipeline; resolves once changes are streamed.
 * @throws FunctionEntryError, CaptureFailedError: with everything stopped again.
 */
export async function startLocalHost(options: LocalHostOptions): Promise<LocalHost> {
  const { definition, aws, onLog, onFailure } = options;
  const consumers: RunningConsumer[] = [];
  let capture: CaptureProcesses | undefined;
  const stop = async () => {
    await capture?.stop();
    await Promise.all(consumers.map((consumer) => consumer.stop()));
  };
  try {
    const started = await Promise.allSettled(
      definition.consumers.map(async (consumer) => {
        consumers.push(
          await startConsumer(consumer, {
            definition,
            resources: aws.resources,
            kinesis: aws.clients.kinesis,
            surroundings: { ...options.handlerEnvironment, ...aws.environment },
            onLog,
            onFailure,
          }),
        );
      }),
    );
    for (const outcome of started) if (outcome.status === "rejected") throw outcome.reason;
    const environment = {
      ...aws.environment,
      ...options.captureEnvironment,
      DATABASE_URL: options.databaseUrl,
      TRIBUTARY_PIPELINE: options.definitionFile,
      ...aws.resources.captureEnvironment,
    };
    const { source } = definition;
    const slots = sourceKind(source).tasks(source);
    capture = new CaptureProcesses(
      slots.map((slot) => {
        const which = { ...environment, ...(slot > 1 && { [SLOT_VARIABLE]: String(slot) }) };
        return new CaptureProcess({ environment: which, onLog, onFailure });
      }),
    );
    await capture.ready;
    // In the order of the definition, whichever was up first.
    const order = definition.consumers.map(({ name }) => name);
    consumers.sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
    return { capture, consumers, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
