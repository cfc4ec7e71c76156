import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { CAPTURE_DEAD_LETTER_VARIABLE } from "../../capture/dead-letters.ts";
import { CLAIM_BUCKET_VARIABLE } from "../../claim-check/open-claim-store.ts";
import type { RedriveReport } from "../../consume/dead-letter/redrive-request.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { projectDirectory } from "../../definition/find-definition.ts";
import { topicVariables } from "../../definition/topic-variables.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../local/embedded-postgres.ts";
import type { Emulators } from "../../local/emulators.ts";
import { isIdle } from "../../local/event-source-mapping/mapping.ts";
import type { AwsClients, PipelineResources } from "../../local/resources.ts";
import { SLOT_VARIABLE } from "../../source/postgres/slots/slot-number.ts";
import { TcpFaultProxy } from "../fault/tcp-proxy.ts";
import { CaptureTask } from "./capture-task.ts";
import { Confirmations } from "./confirmations.ts";
import { DeadLetterQueues } from "./dead-letter-queues.ts";
import { FaultyAws } from "./faulty-aws.ts";
import {
  type CheckedParts,
  checkRefusals,
  lastLines,
  startLocalParts,
  startTogether,
  withClient,
} from "./local-parts.ts";
import { type Mischief, mischiefCount } from "./mischief.ts";
import { type RiggedConsumer, startRiggedConsumer } from "./rigged-consumer.ts";
import { waitUntil } from "./round.ts";
import { MENDED_VARIABLE, MISCHIEF_VARIABLE, SINK_URL_VARIABLE, SinkStore } from "./sink-store.ts";
import { withSlots, writeWithSlots } from "./slot-definition.ts";
import { slotsOf } from "./slot-history.ts";

const START_DEADLINE_MS = 60_000;

/** Settings of `Rig.start`. */
export interface RigOptions {
  readonly definition: Pipeline;
  /** The file that exports it: the capture tasks read it. */
  readonly definitionFile: string;
  /** Number of slots that the tables are spread over. Default: the definition's. */
  readonly slots?: number;
  /** SQL that makes the tables. */
  readonly schema: string;
  /** More variables of the capture tasks' processes. */
  readonly captureEnvironment?: Readonly<Record<string, string>>;
  /** More variables of the handlers' processes. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Lines that handlers print. */
  readonly onLog?: (line: string) => void;
}

/** The whole pipeline on this machine, each part where a fault can reach it. */
export class Rig {
  readonly source: EmbeddedPostgres;
  /** The source database, reached without a fault proxy. */
  readonly databaseUrl: string;
  /** Between the capture tasks and the source. */
  readonly link: TcpFaultProxy;
  /** Between the capture tasks, the handlers and AWS. */
  readonly aws: FaultyAws;
  readonly #emulators: Emulators;
  readonly kinesis: AwsClients["kinesis"];
  readonly resources: PipelineResources;
  readonly confirmations: Confirmations;
  readonly sinks: SinkStore;
  readonly consumers: RiggedConsumer[] = [];
  /** Parked changes that redrives brought to effect, as far as they came to tell. */
  redriven = 0;
  readonly #captures: CaptureTask[] = [];
  readonly #captureEnvironment: Readonly<Record<string, string>>;
  readonly #definitionFile: string;
  readonly #directory: string;
  readonly #stack: AsyncDisposableStack;
  #definition: Pipeline;
  readonly #mischiefFile: string;
  readonly #mendedFile: string;
  readonly #deadLetters: DeadLetterQueues;

  private constructor(parts: {
    local: CheckedParts;
    definition: Pipeline;
    link: TcpFaultProxy;
    aws: FaultyAws;
    captureEnvironment: Readonly<Record<string, string>>;
    definitionFile: string;
    confirmations: Confirmations;
    sinks: SinkStore;
    directory: string;
    stack: AsyncDisposableStack;
  }) {
    const { source, emulators, kinesis, sqs, resources } = parts.local;
    this.#definition = parts.definition;
    this.source = source;
    this.databaseUrl = source.url;
    this.link = parts.link;
    this.aws = parts.aws;
    this.#emulators = emulators;
    this.kinesis = kinesis;
    this.resources = resources;
    this.#captureEnvironment = parts.captureEnvironment;
    this.#definitionFile = parts.definitionFile;
    this.#directory = parts.directory;
    this.confirmations = parts.confirmations;
    this.sinks = parts.sinks;
    this.#deadLetters = new DeadLetterQueues(sqs);
    this.#mischiefFile = join(parts.directory, "mischief.json");
    this.#mendedFile = join(parts.directory, "mended");
    this.#stack = parts.stack;
  }

  /**
   * Starts everything, and waits until the capture tasks stream.
   * @throws ConfigurationError where the definition cannot have so many slots.
   */
  static async start(options: RigOptions): Promise<Rig> {
    const stack = new AsyncDisposableStack();
    try {
      const rig = await Rig.#build(options, stack);
      await rig.#startConsumers(options);
      const slots = slotsOf(rig.definition);
      for (let number = 1; number <= Math.max(1, slots.length); number++) rig.#startCapture(number);
      for (const slot of slots) await rig.#slotIsActive(slot);
      if (slots.length > 0) {
        rig.confirmations.watch(rig.databaseUrl, () => slotsOf(rig.definition));
        stack.defer(() => rig.confirmations.stop());
      } else await rig.#captureReads();
      return rig;
    } catch (error) {
      await endAll(stack);
      throw error;
    }
  }

  static async #build(options: RigOptions, stack: AsyncDisposableStack): Promise<Rig> {
    const definition = withSlots(options.definition, options.slots);
    const confirmations = new Confirmations();
    const [local, sinkServer, directory] = await startTogether<[CheckedParts, EmbeddedPostgres, string]>(
      stack,
      [
        [startLocalParts(definition, [options.schema], stack), async () => {}],
        [startEmbeddedPostgres(), (server) => server.stop("immediate")],
        [mkdtemp(join(tmpdir(), "tributary-checker-")), (path) => rm(path, { recursive: true })],
      ],
    );
    const { source, emulators, resources } = local;
    const sinks = new SinkStore(sinkServer.url);
    await sinks.create();
    stack.defer(() => sinks.end());
    const link = await TcpFaultProxy.start(source);
    stack.defer(() => link.stop());
    const aws = await FaultyAws.start(emulators, confirmations.onAnswer);
    stack.defer(() => aws.stop());
    const captureEnvironment = {
      PATH: process.env.PATH ?? "",
      NODE_NO_WARNINGS: "1",
      ...aws.environment,
      DATABASE_URL: link.urlFor(source.url),
      TRIBUTARY_PIPELINE: await writeWithSlots(options.definitionFile, options.slots, directory),
      ...resources.captureEnvironment,
      [CAPTURE_DEAD_LETTER_VARIABLE]: throughProxy(captureQueue(resources), aws),
      [CLAIM_BUCKET_VARIABLE]: pathToFileURL(join(directory, "claims")).href,
      // Kills come often here; the default of 15 s would be most of the time.
      TRIBUTARY_LEASE_MS: "3000",
      ...options.captureEnvironment,
    };
    const { definitionFile } = options;
    return new Rig({
      ...{ local, definition, definitionFile, captureEnvironment },
      ...{ link, aws, confirmations, sinks, directory, stack },
    });
  }

  /** The pipeline as it is now: `addSlot` changes it. */
  get definition(): Pipeline {
    return this.#definition;
  }

  /** The capture tasks: one, or one for each slot in their order. */
  get captures(): readonly CaptureTask[] {
    return this.#captures;
  }

  /** The first slot's capture task; of a pipeline with one slot, the only one. */
  get capture(): CaptureTask {
    return this.#captures[0] as CaptureTask;
  }

  /**
   * One slot more, as a deploy gives it: tasks read the new number when they start next, and the new slot's, which takes
   * tables over, starts now with these failpoints. Only where `slots` was given at the start.
   * @throws ConfigurationError where there are as many as there may be.
   */
  async addSlot(failpoints: string): Promise<CaptureTask> {
    const number = this.#captures.length + 1;
    this.#definition = withSlots(this.#definition, number);
    await writeWithSlots(this.#definitionFile, number, this.#directory);
    return this.#startCapture(number, failpoints);
  }

  /** Makes the checker's handlers fail in this way from their next invocations on; undefined: in none. */
  async mischief(mischief: Mischief | undefined): Promise<void> {
    if (mischief) await writeFile(this.#mischiefFile, JSON.stringify(mischief));
    else await rm(this.#mischiefFile, { force: true });
  }

  /** Returns the number of times that a handler has met mischief. */
  async mischiefMet(): Promise<number> {
    return (await stat(mischiefCount(this.#mischiefFile)).catch(() => undefined))?.size ?? 0;
  }

  /** Mends the handler that fails for good on some changes, or breaks it again. */
  async mended(mended: boolean): Promise<void> {
    if (mended) await writeFile(this.#mendedFile, "");
    else await rm(this.#mendedFile, { force: true });
  }

  /** One redrive of a consumer's open dead letters. What becomes of it the effects tell: it may be killed, too. */
  async redrive(consumer: string): Promise<void> {
    const rigged = this.consumers.find(({ definition }) => definition.name === consumer);
    const result = await rigged?.function.invoke({ tributary: "redrive", consumer });
    if (result?.ok) this.redriven += (result.response as RedriveReport).redriven;
  }

  /** Dead letters of a consumer so far: `topic/position`, and `topic/partition/position`. */
  async deadLetters(consumer: string): Promise<ReadonlySet<string>> {
    return await this.#deadLetters.read(this.resources.deadLetterQueues.get(consumer) ?? "");
  }

  /** Changes that capture has put aside so far: `topic/position`. */
  async putAside(): Promise<ReadonlySet<string>> {
    const queue = captureQueue(this.resources);
    if (queue === "") return new Set();
    const found = await this.#deadLetters.read(queue);
    return new Set([...found].filter((name) => name.split("/").length === 2));
  }

  /** Returns true if no consumer has anything to do with what the stream holds. */
  idle(): boolean {
    return this.consumers.every(({ mapping }) => isIdle(mapping));
  }

  /** @throws CallsRefusedError where capture or a consumer made calls that AWS refuses. */
  async stop(): Promise<void> {
    try {
      await checkRefusals(this.#emulators);
    } finally {
      await endAll(this.#stack);
    }
  }

  async #startConsumers(options: RigOptions): Promise<void> {
    for (const definition of this.definition.consumers) {
      const deadLetterQueue = this.resources.deadLetterQueues.get(definition.name) ?? "";
      const consumer = await startRiggedConsumer(
        { ...definition, entry: resolve(projectDirectory(options.definitionFile), definition.entry) },
        {
          kinesis: this.kinesis,
          stream: this.resources.stream,
          surroundings: this.aws.environment,
          environment: {
            TRIBUTARY_PIPELINE_NAME: this.definition.name,
            TRIBUTARY_STATE_TABLE: this.resources.stateTable,
            TRIBUTARY_DEAD_LETTER_QUEUE_URL: throughProxy(deadLetterQueue, this.aws),
            TRIBUTARY_ATTEMPTS: String(definition.attempts),
            TRIBUTARY_POISON: definition.poison,
            ...topicVariables(definition.topics),
            [SINK_URL_VARIABLE]: this.sinks.url,
            [MISCHIEF_VARIABLE]: this.#mischiefFile,
            [MENDED_VARIABLE]: this.#mendedFile,
            ...options.environment,
          },
          onLog: options.onLog,
        },
        this.#stack,
      );
      this.consumers.push(consumer);
    }
  }

  #startCapture(number: number, failpoints?: string): CaptureTask {
    const capture = new CaptureTask({
      ...this.#captureEnvironment,
      ...(number === 1 ? {} : { [SLOT_VARIABLE]: String(number) }),
    });
    if (failpoints) capture.arm(failpoints);
    this.#captures.push(capture);
    capture.start();
    this.#stack.defer(() => capture.stop());
    return capture;
  }

  async #captureReads(): Promise<void> {
    await waitUntil("the capture task reads", () => this.capture.streaming, this.#start());
  }

  async #slotIsActive(slot: string): Promise<void> {
    await withClient(this.databaseUrl, async (client) => {
      const isActive = async () => {
        const active = "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active";
        return (await client.query(active, [slot])).rowCount === 1;
      };
      await waitUntil(`the slot ${slot} is streamed from`, isActive, this.#start());
    });
  }

  /** Limits of the wait for the start. */
  #start() {
    return {
      deadlineMs: START_DEADLINE_MS,
      hopeless: () => this.captures.some(({ gaveUp }) => gaveUp),
      explain: () => lastLines(this.captures, 20),
    };
  }
}

/** The SQS client takes the queue's URL for the endpoint. */
function throughProxy(queue: string, aws: FaultyAws): string {
  return queue && new URL(new URL(queue).pathname, aws.environment.AWS_ENDPOINT_URL_SQS).toString();
}

/** URL of the queue of changes that are put aside; empty where there is none. */
function captureQueue({ captureEnvironment }: PipelineResources): string {
  return captureEnvironment[CAPTURE_DEAD_LETTER_VARIABLE] ?? "";
}

/** Ends the parts, the last one first; what fails to end does not keep the others. */
async function endAll(stack: AsyncDisposableStack): Promise<void> {
  await stack.disposeAsync().catch(() => {});
}
