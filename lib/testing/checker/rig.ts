import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { DeleteMessageCommand, ReceiveMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";
import pg from "pg";
import { dynamodbClient, kinesisClient, sqsClient } from "../../aws/clients.ts";
import { CAPTURE_DEAD_LETTER_VARIABLE } from "../../capture/dead-letters.ts";
import { CLAIM_BUCKET_VARIABLE } from "../../claim-check/open-claim-store.ts";
import { topicFilters } from "../../consume/api/topic-filters.ts";
import type { RedriveReport } from "../../consume/dead-letter/redrive-request.ts";
import type { ConsumerDefinition, Pipeline } from "../../definition/definition.ts";
import { topicVariables } from "../../definition/topic-variables.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../local/embedded-postgres.ts";
import { type Emulators, refusedText, startEmulators } from "../../local/emulators.ts";
import { type EventSourceMapping, runEventSourceMapping } from "../../local/event-source-mapping/mapping.ts";
import { type LambdaFunction, startLambdaFunction } from "../../local/lambda/host.ts";
import { CallsRefusedError } from "../../local/local-errors.ts";
import { type AwsClients, createResources, type PipelineResources } from "../../local/resources.ts";
import { SLOT_VARIABLE } from "../../source/postgres/slots/slot-number.ts";
import { TcpFaultProxy } from "../fault/tcp-proxy.ts";
import { CaptureTask } from "./capture-task.ts";
import { Confirmations } from "./confirmations.ts";
import { FaultyAws } from "./faulty-aws.ts";
import { type Mischief, mischiefCount } from "./mischief.ts";
import { MENDED_VARIABLE, MISCHIEF_VARIABLE, SINK_URL_VARIABLE, SinkStore } from "./sink-store.ts";
import { withSlots, writeWithSlots } from "./slot-definition.ts";
import { slotsOf } from "./slot-history.ts";

/** What a rig is built from. */
export interface RigOptions {
  readonly definition: Pipeline;
  /** The file that exports it: the capture tasks read it. */
  readonly definitionFile: string;
  /** How many slots the tables are spread over. Default: what the definition says. */
  readonly slots?: number;
  /** SQL that makes the tables. */
  readonly schema: string;
  /** More variables of the handlers' processes. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Lines that handlers print. */
  readonly onLog?: (line: string) => void;
}

/** A consumer as it runs: its processes, and what feeds them. */
export interface RiggedConsumer {
  readonly definition: ConsumerDefinition;
  readonly function: LambdaFunction;
  readonly mapping: EventSourceMapping;
  /** What invocations failed with: the class of the error. Whoever reads them may take them off. */
  readonly failures: string[];
  /** Invocations under way now. */
  running(): number;
  /** The last batches that were given to the function, to give them again. */
  lastBatches(): readonly unknown[];
}

const KEPT_BATCHES = 50;

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
  readonly #undo: (() => Promise<unknown>)[] = [];
  #definition: Pipeline;
  readonly #mischiefFile: string;
  readonly #mendedFile: string;
  readonly #sqs: SQSClient;
  readonly #letters = new Map<string, Set<string>>();

  private constructor(parts: {
    definition: Pipeline;
    source: EmbeddedPostgres;
    databaseUrl: string;
    link: TcpFaultProxy;
    aws: FaultyAws;
    emulators: Emulators;
    kinesis: AwsClients["kinesis"];
    resources: PipelineResources;
    captureEnvironment: Readonly<Record<string, string>>;
    definitionFile: string;
    confirmations: Confirmations;
    sinks: SinkStore;
    sqs: SQSClient;
    directory: string;
    undo: (() => Promise<unknown>)[];
  }) {
    this.#definition = parts.definition;
    this.source = parts.source;
    this.databaseUrl = parts.databaseUrl;
    this.link = parts.link;
    this.aws = parts.aws;
    this.#emulators = parts.emulators;
    this.kinesis = parts.kinesis;
    this.resources = parts.resources;
    this.#captureEnvironment = parts.captureEnvironment;
    this.#definitionFile = parts.definitionFile;
    this.#directory = parts.directory;
    this.confirmations = parts.confirmations;
    this.sinks = parts.sinks;
    this.#sqs = parts.sqs;
    this.#mischiefFile = join(parts.directory, "mischief.json");
    this.#mendedFile = join(parts.directory, "mended");
    this.#undo = parts.undo;
  }

  /**
   * Starts everything, and waits until the capture tasks stream.
   * @throws ConfigurationError where the definition cannot have so many slots.
   */
  static async start(options: RigOptions): Promise<Rig> {
    const undo: (() => Promise<unknown>)[] = [];
    try {
      const rig = await Rig.#build(options, undo);
      await rig.#startConsumers(options);
      const slots = slotsOf(rig.definition);
      for (let number = 1; number <= Math.max(1, slots.length); number++) rig.#startCapture(number);
      for (const slot of slots) await rig.#slotIsActive(slot);
      if (slots.length > 0) {
        rig.confirmations.watch(rig.databaseUrl, () => slotsOf(rig.definition));
        undo.push(() => rig.confirmations.stop());
      } else await rig.#captureReads();
      return rig;
    } catch (error) {
      await unwind(undo);
      throw error;
    }
  }

  static async #build(options: RigOptions, undo: (() => Promise<unknown>)[]): Promise<Rig> {
    const definition = withSlots(options.definition, options.slots);
    const keep = async <T>(started: Promise<T>, end: (part: T) => Promise<unknown>): Promise<T> => {
      const part = await started;
      undo.push(() => end(part));
      return part;
    };
    const confirmations = new Confirmations();
    const starts = await Promise.allSettled([
      keep(startEmbeddedPostgres(), (server) => server.stop("immediate")),
      keep(startEmbeddedPostgres(), (server) => server.stop("immediate")),
      keep(startEmulators(), (emulators) => emulators.stop()),
      keep(mkdtemp(join(tmpdir(), "tributary-checker-")), (path) => rm(path, { recursive: true })),
    ]);
    for (const started of starts) if (started.status === "rejected") throw started.reason;
    const [source, sinkServer, emulators, directory] = starts.map(
      (started) => (started as PromiseFulfilledResult<unknown>).value,
    ) as [EmbeddedPostgres, EmbeddedPostgres, Emulators, string];

    const databaseUrl = source.url;
    await execute(databaseUrl, options.schema);
    const sinks = new SinkStore(sinkServer.url);
    await sinks.create();
    undo.push(() => sinks.end());
    const link = await keep(TcpFaultProxy.start(source), (proxy) => proxy.stop());
    const aws = await keep(FaultyAws.start(emulators, confirmations.onAnswer), (proxies) => proxies.stop());
    const clients = {
      kinesis: kinesisClient(emulators.environment),
      dynamodb: dynamodbClient(emulators.environment),
      sqs: sqsClient(emulators.environment),
    };
    const resources = await createResources(definition, clients);
    const captureEnvironment = {
      PATH: process.env.PATH ?? "",
      NODE_NO_WARNINGS: "1",
      ...aws.environment,
      DATABASE_URL: link.urlFor(databaseUrl),
      TRIBUTARY_PIPELINE: await writeWithSlots(options.definitionFile, options.slots, directory),
      ...resources.captureEnvironment,
      [CAPTURE_DEAD_LETTER_VARIABLE]: throughProxy(captureQueue(resources), aws),
      [CLAIM_BUCKET_VARIABLE]: pathToFileURL(join(directory, "claims")).href,
      // Kills come often here; the default of 15 s would be most of the time.
      TRIBUTARY_LEASE_MS: "3000",
    };
    return new Rig({
      ...{
        definition,
        source,
        databaseUrl,
        link,
        aws,
        emulators,
        resources,
        captureEnvironment,
        confirmations,
        sinks,
      },
      ...{
        definitionFile: options.definitionFile,
        directory,
        undo,
        kinesis: clients.kinesis,
        sqs: clients.sqs,
      },
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

  /** What goes wrong in the checker's handlers from their next invocations on; undefined: nothing. */
  async mischief(mischief: Mischief | undefined): Promise<void> {
    if (mischief) await writeFile(this.#mischiefFile, JSON.stringify(mischief));
    else await rm(this.#mischiefFile, { force: true });
  }

  /** How often a handler has met mischief. */
  async mischiefMet(): Promise<number> {
    return (await stat(mischiefCount(this.#mischiefFile)).catch(() => undefined))?.size ?? 0;
  }

  /** Whether the handler that fails for good on some changes is mended, until it is broken again. */
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
    return await this.#drain(consumer, this.resources.deadLetterQueues.get(consumer) ?? "");
  }

  /** Changes that capture has put aside so far: `topic/position`. */
  async putAside(): Promise<ReadonlySet<string>> {
    const queue = captureQueue(this.resources);
    if (queue === "") return new Set();
    const found = await this.#drain("", queue);
    return new Set([...found].filter((name) => name.split("/").length === 2));
  }

  async #drain(name: string, QueueUrl: string): Promise<ReadonlySet<string>> {
    const found = this.#letters.get(name) ?? new Set();
    this.#letters.set(name, found);
    for (;;) {
      const receive = new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 });
      const { Messages = [] } = await this.#sqs.send(receive);
      if (Messages.length === 0) return found;
      for (const { Body = "", ReceiptHandle } of Messages) {
        const { topic, partition, position } = JSON.parse(Body) as Record<string, string | number>;
        found.add(`${topic}/${position}`);
        found.add(`${topic}/${partition}/${position}`);
        await this.#sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
    }
  }

  /** Whether no consumer has anything to do with what the stream holds. */
  idle(): boolean {
    return this.consumers.every(({ mapping }) => {
      const { read, filtered, completed, discarded, shards } = mapping.stats();
      return (
        read === filtered + completed + discarded && shards.every((shard) => shard.millisBehindLatest === 0)
      );
    });
  }

  /** @throws CallsRefusedError where capture or a consumer made calls that AWS refuses. */
  async stop(): Promise<void> {
    const refused = await this.#emulators.takeRefusals();
    await unwind(this.#undo);
    if (refused.length > 0) throw new CallsRefusedError(refused.map(refusedText));
  }

  async #startConsumers(options: RigOptions): Promise<void> {
    for (const definition of this.definition.consumers) {
      const lambda = await startLambdaFunction({
        entry: definition.entry,
        name: `checked-${definition.name}`,
        timeoutMs: definition.timeoutSeconds * 1000,
        memoryMB: definition.memoryMB,
        concurrency: definition.parallelization * 16,
        surroundings: this.aws.environment,
        environment: {
          TRIBUTARY_PIPELINE_NAME: this.definition.name,
          TRIBUTARY_STATE_TABLE: this.resources.stateTable,
          TRIBUTARY_DEAD_LETTER_QUEUE_URL: throughProxy(
            this.resources.deadLetterQueues.get(definition.name) ?? "",
            this.aws,
          ),
          TRIBUTARY_ATTEMPTS: String(definition.attempts),
          TRIBUTARY_POISON: definition.poison,
          ...topicVariables(definition.topics),
          [SINK_URL_VARIABLE]: this.sinks.url,
          [MISCHIEF_VARIABLE]: this.#mischiefFile,
          [MENDED_VARIABLE]: this.#mendedFile,
          ...options.environment,
        },
        onLog: (line) => options.onLog?.(`${definition.name}: ${line}`),
      });
      this.#undo.push(() => lambda.stop());
      const batches: unknown[] = [];
      let running = 0;
      const failures: string[] = [];
      const filters = topicFilters(definition.topics);
      const mapping = await runEventSourceMapping({
        kinesis: this.kinesis,
        streamName: this.resources.stream,
        startingPosition: "TRIM_HORIZON",
        batchSize: definition.batchSize,
        maximumBatchingWindowSeconds: definition.batchWindowSeconds,
        parallelizationFactor: definition.parallelization,
        reportBatchItemFailures: true,
        ...(filters ? { filters } : {}),
        functionHost: {
          name: lambda.name,
          arn: lambda.arn,
          invoke: async (event) => {
            batches.push(event);
            if (batches.length > KEPT_BATCHES) batches.shift();
            running++;
            try {
              return await lambda.invoke(event);
            } finally {
              running--;
            }
          },
        },
      });
      mapping.events.on("invoked", ({ error }) => void (error && failures.push(error)));
      this.#undo.push(() => mapping.stop(15_000));
      this.consumers.push({
        definition,
        function: lambda,
        mapping,
        failures,
        running: () => running,
        lastBatches: () => [...batches],
      });
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
    this.#undo.push(() => capture.stop());
    return capture;
  }

  async #captureReads(): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (!this.capture.streaming) {
      if (performance.now() > deadline || this.capture.gaveUp)
        throw new Error(`the capture task does not read:\n${this.capture.log.slice(-20).join("\n")}`);
      await delay(50);
    }
  }

  async #slotIsActive(slot: string): Promise<void> {
    const client = new pg.Client({ connectionString: this.databaseUrl });
    await client.connect();
    try {
      const deadline = performance.now() + 60_000;
      for (;;) {
        const { rowCount } = await client.query(
          "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active",
          [slot],
        );
        if (rowCount === 1) return;
        if (performance.now() > deadline || this.captures.some(({ gaveUp }) => gaveUp)) {
          const log = this.captures.flatMap((capture) => capture.log.slice(-20));
          throw new Error(`the slot ${slot} is not streamed from:\n${log.join("\n")}`);
        }
        await delay(50);
      }
    } finally {
      await client.end();
    }
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

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** Ends the parts, the last one first; what fails to end does not keep the others. */
async function unwind(undo: (() => Promise<unknown>)[]): Promise<void> {
  while (undo.length > 0)
    await undo
      .pop()?.()
      .catch(() => {});
}
