import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import pg from "pg";
import type { PipelineInput } from "../../lib/definition/pipeline.ts";
import { consumerBench } from "../aws/consume/consumer-bench.ts";
import type { EmulatedAws } from "../aws/emulated.ts";
import { readStream } from "../aws/stream-records.ts";
import { eventually } from "../eventually.ts";
import { kinesisRecord } from "../unit/consume/records.ts";

const CAPTURE = fileURLToPath(new URL("../../functions/capture/main.ts", import.meta.url));
const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));

/** A program of ours as a process: what it printed, and how it ended. */
export class Program {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | NodeJS.Signals>;

  constructor(file: string, args: readonly string[], environment: Readonly<Record<string, string>>) {
    this.#child = spawn(process.execPath, [file, ...args], {
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const output of [this.#child.stdout, this.#child.stderr]) {
      if (output) createInterface({ input: output }).on("line", (line) => this.lines.push(line));
    }
    this.#ended = once(this.#child, "close").then(([code, signal]) => code ?? signal);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Exit code, or the signal that ended it. */
  get ended(): Promise<number | NodeJS.Signals> {
    return this.#ended;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Waits for a line with this text. */
  async printed(text: string, deadlineMs?: number): Promise<string> {
    return eventually(
      () => {
        const found = this.lines.find((line) => line.includes(text));
        if (found === undefined && !this.running) throw new Error(`it ended:\n${this.lines.join("\n")}`);
        return found;
      },
      { what: `"${text}"`, ...(deadlineMs === undefined ? {} : { deadlineMs }) },
    );
  }
}

/** A table, its pipeline, and the capture programs that are started on it. */
export class CaptureBench {
  readonly client: pg.Client;
  readonly environment: Readonly<Record<string, string>>;
  readonly consumer: Awaited<ReturnType<typeof consumerBench>>;
  readonly slot: string;
  readonly #aws: EmulatedAws;
  readonly #stream: string;
  readonly #directory: string;
  readonly #programs: Program[] = [];

  private constructor(parts: {
    client: pg.Client;
    environment: Record<string, string>;
    consumer: Awaited<ReturnType<typeof consumerBench>>;
    slot: string;
    aws: EmulatedAws;
    stream: string;
    directory: string;
  }) {
    this.client = parts.client;
    this.environment = parts.environment;
    this.consumer = parts.consumer;
    this.slot = parts.slot;
    this.#aws = parts.aws;
    this.#stream = parts.stream;
    this.#directory = parts.directory;
  }

  /** `databaseUrl`: an empty database of its own. The table `orders (id, note)` of one partition is made there. */
  static async create(
    aws: EmulatedAws,
    databaseUrl: string,
    options: {
      readonly partitions?: number;
      /** Of the definition's source, beside what the bench says. */
      readonly source?: object;
      /** The consumer's entry file. */
      readonly entry?: string;
      /** How long an invocation of the consumer may run, as defined. */
      readonly timeoutSeconds?: number;
    } = {},
  ): Promise<CaptureBench> {
    const client = new pg.Client({ connectionString: databaseUrl });
    client.on("error", () => {});
    await client.connect();
    await client.query("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    const consumer = await consumerBench(aws, { startPosition: null });
    const directory = await mkdtemp(join(tmpdir(), "tributary-capture-bench-"));
    const slot = new URL(databaseUrl).pathname.slice(1).replace(/\W/g, "_");
    const definition: PipelineInput = {
      // The consumer of the bench belongs to a pipeline of this name.
      name: "shop",
      source: {
        kind: "postgres",
        tables: ["public.*"],
        slot,
        acceptUnboundedWal: true,
        snapshot: "never",
        ...options.source,
      },
      topics: { partitions: options.partitions ?? 1 },
      consumers: [
        {
          ...{ name: consumer.name, entry: options.entry ?? "not used", topics: ["*"] },
          ...(options.timeoutSeconds === undefined ? {} : { timeoutSeconds: options.timeoutSeconds }),
        },
      ],
    };
    const file = join(directory, "pipeline.mjs");
    await writeFile(file, `export default ${JSON.stringify(definition)};`);
    const stream = await aws.freshStream();
    const environment = {
      PATH: process.env.PATH ?? "",
      NODE_NO_WARNINGS: "1",
      ...(aws.environment as Record<string, string>),
      DATABASE_URL: databaseUrl,
      TRIBUTARY_PIPELINE: file,
      TRIBUTARY_STREAM: stream,
      TRIBUTARY_STATE_TABLE: consumer.table,
    };
    return new CaptureBench({ client, environment, consumer, slot, aws, stream, directory });
  }

  /** Starts a capture program. */
  capture(environment: Readonly<Record<string, string>> = {}): Program {
    return this.#start(CAPTURE, [], environment);
  }

  /** Starts a `tributary` command. */
  command(...args: string[]): Program {
    return this.#start(CLI, args, {});
  }

  /** The same, with more environment. */
  run(environment: Readonly<Record<string, string>>, ...args: string[]): Program {
    return this.#start(CLI, args, environment);
  }

  #start(file: string, args: readonly string[], environment: Readonly<Record<string, string>>): Program {
    const program = new Program(file, args, { ...this.environment, ...environment });
    this.#programs.push(program);
    return program;
  }

  /** Inserts rows, each in a transaction of its own. */
  async insert(from: number, to: number): Promise<void> {
    for (let id = from; id <= to; id++) await this.client.query("INSERT INTO orders VALUES ($1, 'x')", [id]);
  }

  /** Records of the stream so far. */
  async records() {
    return (await readStream(this.#aws.kinesis, this.#stream)).map(({ data, partitionKey }) =>
      kinesisRecord(data, partitionKey),
    );
  }

  /** Ids of the rows that stand in the stream, by record, with the record's writer. */
  async written(): Promise<{ writer: number; id: number }[]> {
    return (await this.records()).flatMap(({ kinesis }) => {
      const { writer, events } = JSON.parse(Buffer.from(kinesis.data, "base64").toString());
      return events.flatMap(({ after }: { after: { id: number } | null }) =>
        after ? [{ writer, id: after.id }] : [],
      );
    });
  }

  /** Waits until this row stands in the stream, written by `writer` if that is given. */
  async reached(id: number, writer?: number, deadlineMs?: number): Promise<void> {
    await eventually(
      async () =>
        (await this.written()).some(
          (row) => row.id === id && (writer === undefined || row.writer === writer),
        ),
      { what: `row ${id} in the stream`, ...(deadlineMs === undefined ? {} : { deadlineMs }) },
    );
  }

  /** Process id of the slot's walsender. */
  async walsender(): Promise<number | null> {
    const { rows } = await this.client.query<{ pid: number | null }>(
      "SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1",
      [this.slot],
    );
    return rows[0]?.pid ?? null;
  }

  /** Ends what still runs. */
  async end(): Promise<void> {
    for (const program of this.#programs.filter(({ running }) => running)) {
      program.signal("SIGKILL");
      await program.ended;
    }
    await rm(this.#directory, { recursive: true, force: true });
    await this.client.end().catch(() => {});
  }
}
