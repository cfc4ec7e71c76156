import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { buildCapture } from "../../../cdk/constructs/capture-program.ts";
import { NODE_ARGUMENTS } from "../../../functions/capture/node-arguments.ts";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import { METRICS_SECONDS_VARIABLE } from "../../../lib/capture/capture-metrics.ts";
import type { PipelineInput } from "../../../lib/definition/pipeline.ts";
import { type ServingChild, startServingChild } from "../../../lib/local/child.ts";
import { createTable } from "../../../lib/local/resources.ts";
import type { Packing } from "../../../lib/stream/packing.ts";
import { type Backlog, PUBLICATION } from "./backlog.ts";
import type { Arrival, EndpointReport } from "./kinesis-endpoint.ts";
import { MeasuredProcess } from "./process.ts";

const run = promisify(execFile);

/** One reading of the whole backlog. */
export interface Reading {
  readonly changes: number;
  readonly seconds: number;
  readonly peakMB: number;
  /** CPU seconds of the client's process; of Tributary's program without its start. */
  readonly cpuSeconds: number;
  /** What arrived, where it went to an endpoint. */
  readonly endpoint?: EndpointReport;
}

/** A client that reads the backlog from a slot of its own. */
export interface Client {
  readonly name: string;
  read(backlog: Backlog, slot: string): Promise<Reading>;
}

const DEADLINE_MS = 600_000;
const LOOK_MS = 100;
/** Where the program of another checkout is built. */
const BESIDE = "beside";
/** pg-logical-replication, held fast: what is measured is this version. */
const PEER = "pg-logical-replication@2.5.0";

/** PostgreSQL's own client: takes messages and writes them to /dev/null without looking at them. */
export const pgRecvlogical: Client = recvlogicalOf(PUBLICATION);

/** The same for another publication than the bench's. */
export function recvlogicalOf(publication: string): Client {
  return {
    name: "pg_recvlogical",
    async read({ databaseUrl, endLsn, changes }, slot) {
      const url = new URL(databaseUrl);
      const started = performance.now();
      const client = new MeasuredProcess(
        "pg_recvlogical",
        [
          ...["--start", "--no-loop", "--slot", slot, "--endpos", endLsn, "--file", "/dev/null"],
          ...["--host", url.hostname, "--port", url.port, "--username", url.username],
          ...["--dbname", url.pathname.slice(1)],
          ...["--option", "proto_version=1", "--option", `publication_names=${publication}`],
          ...["--option", "messages=true"],
        ],
        { env: { PATH: process.env.PATH ?? "", PGPASSWORD: url.password } },
      );
      const code = await client.ended;
      if (code !== 0) throw new Error(`pg_recvlogical ended with ${code}: ${client.printed}`);
      const seconds = (performance.now() - started) / 1000;
      return { changes, seconds, peakMB: client.peakMB, cpuSeconds: client.cpuSeconds };
    },
  };
}

/** npm's pg-logical-replication, installed once in a directory of its own. */
export class Peers implements AsyncDisposable {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async install(): Promise<Peers> {
    const directory = await mkdtemp(join(tmpdir(), "tributary-bench-peers-"));
    await writeFile(join(directory, "package.json"), '{"private":true}');
    await run("npm", ["install", "--no-audit", "--no-fund", "--save-exact", PEER], { cwd: directory });
    await writeFile(join(directory, "read.mjs"), READ_WITH_PEER);
    return new Peers(directory);
  }

  /** Reads with its PgoutputPlugin; `json`: each row is made JSON too. */
  client(json: boolean): Client {
    return {
      name: `pg-logical-replication, ${json ? "JSON" : "counting"}`,
      read: async ({ databaseUrl, changes }, slot) => {
        const reading = Promise.withResolvers<number>();
        reading.promise.catch(() => {});
        const client = new MeasuredProcess(process.execPath, ["read.mjs"], {
          cwd: this.#directory,
          env: {
            PATH: process.env.PATH ?? "",
            DATABASE_URL: databaseUrl,
            SLOT: slot,
            PUBLICATION,
            CHANGES: String(changes),
            ...(json ? { JSON_TOO: "1" } : {}),
          },
          onLine: (line) => {
            const milliseconds = /^read in (\d+) ms$/.exec(line)?.[1];
            if (milliseconds !== undefined) reading.resolve(Number(milliseconds));
          },
        });
        void client.ended.then(() => reading.reject(new Error(`it ended: ${client.printed}`)));
        const milliseconds = await withDeadline(reading.promise);
        const { peakMB, cpuSeconds } = client;
        await client.stop();
        return { changes, seconds: milliseconds / 1000, peakMB, cpuSeconds };
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}

const READ_WITH_PEER = `
import { LogicalReplicationService, PgoutputPlugin } from "pg-logical-replication";
const { DATABASE_URL, SLOT, PUBLICATION, CHANGES, JSON_TOO } = process.env;
const service = new LogicalReplicationService({ connectionString: DATABASE_URL });
const expected = Number(CHANGES);
let started, changes = 0, characters = 0;
service.on("start", () => { started = performance.now(); });
service.on("error", (error) => { console.error(error.message); process.exit(1); });
service.on("data", (lsn, { tag, relation, key, old, new: row }) => {
  if (tag !== "insert" && tag !== "update" && tag !== "delete") return;
  if (JSON_TOO) {
    const { schema, name } = relation;
    characters += JSON.stringify({ op: tag, schema, table: name, lsn, key, old, row }).length;
  }
  if (++changes === expected) console.log("read in " + Math.round(performance.now() - started) + " ms");
});
service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [PUBLICATION] }), SLOT);
`;

/** Where Tributary's capture program writes: an endpoint of Kinesis, and one of DynamoDB for its state. */
export class Endpoints implements AsyncDisposable {
  readonly #kinesis: ServingChild;
  readonly #dynamodb: ServingChild;
  readonly #directory: string;
  #tables = 0;

  private constructor(kinesis: ServingChild, dynamodb: ServingChild, directory: string) {
    this.#kinesis = kinesis;
    this.#dynamodb = dynamodb;
    this.#directory = directory;
  }

  /** `beside`: a folder with another checkout, installed, whose program is to be measured too. */
  static async start(beside?: string): Promise<Endpoints> {
    const kinesis = await startServingChild(new URL("./kinesis-endpoint.ts", import.meta.url));
    const dynamodb = await startServingChild(
      new URL("../../../lib/local/emulators/dynamodb.ts", import.meta.url),
    );
    const directory = await mkdtemp(join(tmpdir(), "tributary-bench-capture-"));
    buildCapture(directory);
    if (beside !== undefined) {
      const other = (await import(join(beside, "cdk/constructs/capture-program.ts"))) as {
        buildCapture: typeof buildCapture;
      };
      other.buildCapture(join(directory, BESIDE));
    }
    return new Endpoints(kinesis, dynamodb, directory);
  }

  /** The real program as the image holds it, from the moment it streams until the endpoint has answered the last record. */
  tributary(options: {
    readonly packing: Packing;
    readonly delayMs: number;
    /** The program of the other checkout. */
    readonly beside?: boolean;
    /** Arguments to Node, such as `--cpu-prof`. */
    readonly nodeArguments?: readonly string[];
    /** What is different in the pipeline's definition. */
    readonly partitions?: number;
    readonly tables?: readonly string[];
    /** Whether rows that are there are read: default never. */
    readonly snapshot?: "initial" | "never";
    /** Reads no further than so many changes: for what would take all day. */
    readonly upTo?: number;
    /** Whether the endpoint looks at each event at the end; else it keeps none, for what does not fit into memory. */
    readonly keep?: boolean;
  }): Client & { read(backlog: Pick<Backlog, "databaseUrl" | "changes">, slot: string): Promise<Reading> } {
    const { packing, delayMs, keep = true, upTo = Number.POSITIVE_INFINITY } = options;
    const how = { batch: "packed", gzip: "packed with gzip", none: "unpacked" }[packing];
    return {
      name: `${options.beside ? "beside" : "Tributary"}, ${how}${delayMs ? `, ${delayMs} ms` : ""}`,
      read: async ({ databaseUrl, changes }, slot) => {
        await this.begin({ delayMs, keep });
        const { program, streaming, stored } = await this.#start(
          databaseUrl,
          slot,
          options,
          Math.min(changes, upTo),
        );
        try {
          const startedAt = await withDeadline(streaming);
          const before = program.cpuSeconds;
          await withDeadline(stored);
          const { peakMB } = program;
          const cpuSeconds = program.cpuSeconds - before;
          const endpoint = await this.report();
          const all = upTo >= changes;
          if (keep && ((all && endpoint.events !== changes) || endpoint.disorder > 0)) {
            throw new Error(`${endpoint.events} of ${changes} events, ${endpoint.disorder} out of order`);
          }
          const seconds = (endpoint.lastAnswerAt - startedAt) / 1000;
          return { changes: all ? changes : endpoint.events, seconds, peakMB, cpuSeconds, endpoint };
        } finally {
          await program.stop();
        }
      },
    };
  }

  /** Where Kinesis is, for clients that are not ours. */
  get kinesis(): string {
    return this.#kinesis.endpoint;
  }

  /** Forgets what the endpoint got: from now on it answers so late, and keeps events or not. */
  async begin({ delayMs, keep }: { delayMs: number; keep: boolean }): Promise<void> {
    await this.#ask(`/delay/${delayMs}`);
    await this.#ask(`/keep/${keep}`);
    await this.#ask("/report");
  }

  /** Waits for so many records since `begin`; when the last one was answered, milliseconds since 1970. */
  async received(records: number, signal: AbortSignal): Promise<number> {
    for (;;) {
      const so = (await this.#ask("/received")) as Pick<EndpointReport, "records" | "lastAnswerAt">;
      if (so.records >= records) return so.lastAnswerAt;
      await delay(LOOK_MS, undefined, { signal });
    }
  }

  /** What the endpoint got since `begin`, each event looked at. */
  async report(): Promise<EndpointReport> {
    return (await this.#ask("/report")) as EndpointReport;
  }

  /** The real program, left running: resolves once it streams. */
  async capture(databaseUrl: string, slot: string, tables: readonly string[]): Promise<MeasuredProcess> {
    const options = { packing: "batch", tables } as const;
    const { program, streaming } = await this.#start(databaseUrl, slot, options, Number.POSITIVE_INFINITY);
    try {
      await withDeadline(streaming);
      return program;
    } catch (error) {
      await program.stop();
      throw error;
    }
  }

  /** The events that arrived since the last time. */
  async arrivals(): Promise<readonly Arrival[]> {
    return (await this.#ask("/arrivals")) as readonly Arrival[];
  }

  async #start(
    databaseUrl: string,
    slot: string,
    options: Parameters<Endpoints["tributary"]>[0] | { packing: "batch"; tables: readonly string[] },
    changes: number,
  ) {
    const environment = await this.#environment(slot, options);
    const streaming = Promise.withResolvers<number>();
    const stored = Promise.withResolvers<void>();
    for (const { promise } of [streaming, stored]) promise.catch(() => {});
    const nodeArguments = "nodeArguments" in options ? (options.nodeArguments ?? []) : [];
    const isBeside = "beside" in options && options.beside === true;
    const main = join(this.#directory, ...(isBeside ? [BESIDE] : []), "main.mjs");
    const program = new MeasuredProcess(process.execPath, [...NODE_ARGUMENTS, ...nodeArguments, main], {
      env: { ...environment, DATABASE_URL: databaseUrl },
      onLine: (line) => {
        if (line.includes("streaming from slot")) streaming.resolve(Date.now());
        const count = /"tributary":"capture".*"changes":(\d+)/.exec(line)?.[1];
        if (Number(count) >= changes) stored.resolve();
      },
    });
    void program.ended.then((code) => {
      const error = new Error(`the capture program ended with ${code}: ${program.printed}`);
      for (const { reject } of [streaming, stored]) reject(error);
    });
    return { program, streaming: streaming.promise, stored: stored.promise };
  }

  async #environment(
    slot: string,
    {
      packing,
      partitions,
      tables = ["public.orders"],
      snapshot = "never",
    }: {
      packing: Packing;
      partitions?: number;
      tables?: readonly string[];
      snapshot?: "initial" | "never";
    },
  ): Promise<Record<string, string>> {
    const aws = {
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "bench",
      AWS_SECRET_ACCESS_KEY: "bench",
      AWS_ENDPOINT_URL_KINESIS: this.#kinesis.endpoint,
      AWS_ENDPOINT_URL_DYNAMODB: this.#dynamodb.endpoint,
    };
    // No record of an earlier run: a state table of its own.
    const table = `bench-${++this.#tables}`;
    const dynamodb = dynamodbClient(aws);
    await createTable(dynamodb, table, ["pk", "sk"]);
    dynamodb.destroy();
    const definition: PipelineInput = {
      name: "bench",
      source: {
        kind: "postgres",
        tables: [...tables],
        slot,
        publication: PUBLICATION,
        acceptUnboundedWal: true,
        snapshot,
      },
      stream: { packing },
      ...(partitions === undefined ? {} : { topics: { partitions } }),
    };
    const file = join(this.#directory, `${table}.mjs`);
    await writeFile(file, `export default ${JSON.stringify(definition)};`);
    return {
      ...aws,
      PATH: process.env.PATH ?? "",
      NODE_NO_WARNINGS: "1",
      TRIBUTARY_PIPELINE: file,
      TRIBUTARY_STREAM: "bench",
      TRIBUTARY_STATE_TABLE: table,
      [METRICS_SECONDS_VARIABLE]: "1",
    };
  }

  async #ask(path: string): Promise<unknown> {
    const answer = await fetch(this.#kinesis.endpoint + path);
    const found = (await answer.json()) as { message?: string };
    if (!answer.ok) throw new Error(`the endpoint: ${found.message}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#kinesis.stop(), this.#dynamodb.stop()]);
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Rejects where a reading takes ten minutes. */
export async function withDeadline<T>(promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`not done in ${DEADLINE_MS / 1000} s`)), DEADLINE_MS);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
