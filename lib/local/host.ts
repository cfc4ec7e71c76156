import { mkdir, mkdtemp, rm } from "node:fs/promises";
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
import type { EmulatorOptions, Emulators } from "./emulators.ts";
import type { CheckpointStore } from "./event-source-mapping/checkpoint.ts";
import { localParts } from "./local-parts.ts";
import { lookAtRegistrations } from "./registration-notes.ts";
import { type AwsClients, createResources, type PipelineResources } from "./resources.ts";
import { unlessAborted } from "./unless-aborted.ts";

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
  /** Tells what does not fit between handlers, definition and tables, and was not told before: at the start, and after a reload. */
  tellMisfits(): Promise<void>;
  /** Drains capture, then consumers. Idempotent. */
  stop(): Promise<void>;
}

/** Settings of `startLocalHost`. */
export interface LocalHostOptions {
  readonly definition: Pipeline;
  /** The file the definition was read from: the capture task reads it again. */
  readonly definitionFile: string;
  /** Entries of consumers are relative to it. */
  readonly projectDirectory: string;
  readonly databaseUrl: string;
  readonly aws: LocalAws;
  /** More variables of the capture task (how to reach the database) and of the handlers (what they read). */
  readonly captureEnvironment?: Readonly<Record<string, string>>;
  readonly handlerEnvironment?: Readonly<Record<string, string>>;
  /** The code that each consumer runs; left out: its entry. */
  readonly files?: ReadonlyMap<string, string>;
  /** Settings of functions of bundled code: see `LambdaFunctionOptions`. */
  readonly sourceMaps?: boolean;
  /** True where dead letters outlive this process, and `tributary redrive` finds it while it runs. Default false. */
  readonly canRedrive?: boolean;
  /** The consumers' progress, kept beyond this process; left out: each start reads the stream from its beginning. */
  readonly checkpoints?: (consumer: string) => CheckpointStore;
  readonly onLog: (line: string) => void;
  /** Gives the start up, whatever a handler or the database is at; a host that came up is ended by `stop` alone. */
  readonly signal?: AbortSignal;
  /** A part has ended for good. */
  readonly onFailure: (error: Error) => void;
}

/**
 * Starts the emulators and makes the pipeline's stream, table and queues in them. `onRefusal` gets each call that AWS
 * would refuse, and that was refused for it. What they hold is kept in `directory`, if one is given: the next start goes on. `onEnded`
 * hears of an emulator that ends by itself.
 *
 * @throws LocalPartsMissingError where tributary-cdc-local is not installed.
 */
export async function startLocalAws(
  definition: Pipeline,
  signal: AbortSignal,
  { onRefusal, directory, onEnded }: Pick<EmulatorOptions, "onRefusal" | "directory" | "onEnded"> = {},
): Promise<LocalAws> {
  const { startEmulators } = await localParts();
  const emulators: Emulators = await startEmulators({
    signal,
    directory,
    onEnded,
    ...(onRefusal ? { onRefusal } : {}),
  });
  // A directory stands for the bucket of oversize changes.
  const claims = directory ? join(directory, "claims") : await mkdtemp(join(tmpdir(), "tributary-claims-"));
  if (directory) await mkdir(claims, { recursive: true, mode: 0o700 });
  const environment = { ...emulators.environment, [CLAIM_BUCKET_VARIABLE]: pathToFileURL(claims).href };
  const clients = {
    kinesis: kinesisClient(environment),
    dynamodb: dynamodbClient(environment),
    sqs: sqsClient(environment),
  };
  const stop = async () => {
    for (const client of Object.values(clients)) client.destroy();
    await emulators.stop();
    if (!directory) await rm(claims, { recursive: true, force: true });
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
  const { definition, aws, onLog, onFailure, signal = new AbortController().signal } = options;
  let stopped = false;
  const consumers: RunningConsumer[] = [];
  let capture: CaptureProcesses | undefined;
  const stop = async () => {
    stopped = true;
    await capture?.stop();
    await Promise.all(consumers.map((consumer) => consumer.stop()));
  };
  try {
    const starting = Promise.allSettled(
      definition.consumers.map(async (consumer) => {
        const running = await startConsumer(consumer, {
          definition,
          projectDirectory: options.projectDirectory,
          resources: aws.resources,
          kinesis: aws.clients.kinesis,
          surroundings: { ...options.handlerEnvironment, ...aws.environment },
          file: options.files?.get(consumer.name),
          checkpoints: options.checkpoints?.(consumer.name),
          sourceMaps: options.sourceMaps === true,
          canRedrive: options.canRedrive === true,
          onLog,
          onFailure,
        });
        consumers.push(running);
        if (stopped) await running.stop();
      }),
    );
    const started = await unlessAborted(starting, signal);
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
    await unlessAborted(capture.ready, signal);
    const told = new Set<string>();
    const tellMisfits = async () => {
      const notes = await lookAtRegistrations(options, consumers);
      for (const note of notes.filter((each) => !told.has(each))) onLog(note);
      for (const note of notes) told.add(note);
    };
    await unlessAborted(tellMisfits(), signal);
    // In the order of the definition, whichever was up first.
    const order = definition.consumers.map(({ name }) => name);
    consumers.sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
    return { capture, consumers, tellMisfits, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
