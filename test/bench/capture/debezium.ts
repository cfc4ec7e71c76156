import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Backlog, PUBLICATION } from "./backlog.ts";
import { type Client, type Endpoints, type Reading, withDeadline } from "./clients.ts";
import type { DebeziumProgram } from "./debezium/installation.ts";
import { MeasuredProcess } from "./process.ts";
import { streamingBegins } from "./walsender.ts";

/** The names under which they are reported. */
export const DEBEZIUM_EMBEDDED = "Debezium embedded, JSON";
export const DEBEZIUM_SERVER = "Debezium Server to Kinesis";

type Properties = Readonly<Record<string, string>>;

/**
 * What both forms of Debezium read with: https://debezium.io/documentation/reference/3.6/connectors/postgresql.html
 * What is not named has its default: values as they are (`decimal.handling.mode` precise, `time.precision.mode`
 * adaptive), batches of 2,048, a queue of 8,192, a thread a core that makes JSON. Larger batches, and one thread, were no
 * faster.
 */
function connector({ databaseUrl }: Backlog, slot: string): Properties {
  const { hostname, port, username, password, pathname } = new URL(databaseUrl);
  return {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "database.hostname": hostname,
    "database.port": port,
    "database.user": username,
    "database.password": password,
    "database.dbname": pathname.slice(1),
    "topic.prefix": "bench",
    "plugin.name": "pgoutput",
    "slot.name": slot,
    "publication.name": PUBLICATION,
    "publication.autocreate.mode": "disabled",
    // From where the slot stands, without looking at rows that are there.
    "snapshot.mode": "no_data",
    // A change is one event.
    "tombstones.on.delete": "false",
    "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
  };
}

/** The engine in a program of its own that counts: `EmbeddedReader.java`. It has no logger, so it logs nothing. */
export function debeziumEmbedded({ java, arguments: args }: DebeziumProgram): Client {
  return {
    name: DEBEZIUM_EMBEDDED,
    read: (backlog, slot) =>
      measured(async (folder) => {
        const file = join(folder, "engine.properties");
        await writeProperties(file, {
          name: "bench",
          ...connector(backlog, slot),
          "key.converter.schemas.enable": "false",
          "value.converter.schemas.enable": "false",
        });
        const finished = Promise.withResolvers<number>();
        const program = new MeasuredProcess(java, [...args, file, String(backlog.changes)], {
          env: { PATH: process.env.PATH ?? "" },
          onLine: (line) => {
            const at = /^read at (\d+)$/.exec(line)?.[1];
            if (at !== undefined) finished.resolve(Number(at));
          },
        });
        return reading(backlog, slot, program, () => finished.promise);
      }),
  };
}

/** The server with its sink for Kinesis, up to the acknowledgement of the endpoint; it logs errors alone. */
export function debeziumServer({ java, arguments: args }: DebeziumProgram, endpoints: Endpoints): Client {
  return {
    name: DEBEZIUM_SERVER,
    read: (backlog, slot) =>
      measured(async (folder) => {
        const source = Object.entries(connector(backlog, slot)).map(([name, value]) => [
          `debezium.source.${name}`,
          value,
        ]);
        await mkdir(join(folder, "config"));
        // https://debezium.io/documentation/reference/3.6/operations/debezium-server.html
        await writeProperties(join(folder, "config", "application.properties"), {
          ...Object.fromEntries(source),
          "debezium.sink.type": "kinesis",
          "debezium.sink.kinesis.region": "us-east-1",
          "debezium.sink.kinesis.endpoint": endpoints.kinesis,
          "debezium.format.key": "json",
          "debezium.format.value": "json",
          "debezium.format.key.schemas.enable": "false",
          "debezium.format.value.schemas.enable": "false",
          "quarkus.http.port": "0",
          "quarkus.log.level": "ERROR",
        });
        await endpoints.begin({ delayMs: 0, keep: true });
        const program = new MeasuredProcess(java, args, {
          cwd: folder,
          env: {
            PATH: process.env.PATH ?? "",
            AWS_ACCESS_KEY_ID: "bench",
            AWS_SECRET_ACCESS_KEY: "bench",
          },
        });
        const found = await reading(backlog, slot, program, (signal) =>
          endpoints.received(backlog.changes, signal),
        );
        const endpoint = await endpoints.report();
        if (endpoint.events !== backlog.changes || endpoint.disorder > 0)
          throw new Error(
            `${endpoint.events} of ${backlog.changes} events, ${endpoint.disorder} out of order`,
          );
        return { ...found, endpoint };
      }),
  };
}

/** In a folder of its own. */
async function measured(read: (folder: string) => Promise<Reading>): Promise<Reading> {
  const folder = await mkdtemp(join(tmpdir(), "tributary-bench-debezium-"));
  try {
    return await read(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * From the moment the slot is streamed from to the one that `finished` gives. The start of the virtual machine is
 * outside, its warming up inside: 1,000,000 changes take it long enough.
 */
async function reading(
  backlog: Backlog,
  slot: string,
  program: MeasuredProcess,
  finished: (signal: AbortSignal) => Promise<number>,
): Promise<Reading> {
  const over = new AbortController();
  const ended = program.ended.then((code): never => {
    throw new Error(`it ended with ${code}: ${program.printed}`);
  });
  ended.catch(() => {});
  try {
    const startedAt = await Promise.race([ended, streamingBegins(backlog, slot, over.signal)]);
    const before = program.cpuSeconds;
    const at = await withDeadline(Promise.race([ended, finished(over.signal)]));
    const { peakMB, cpuSeconds } = program;
    return {
      changes: backlog.changes,
      seconds: (at - startedAt) / 1000,
      peakMB,
      cpuSeconds: cpuSeconds - before,
    };
  } finally {
    over.abort();
    await program.stop();
  }
}

/** https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/Properties.html */
async function writeProperties(file: string, properties: Properties): Promise<void> {
  const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}`);
  await writeFile(file, lines.join("\n"));
}
