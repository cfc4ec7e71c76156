import { availableParallelism, loadavg } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { definePipeline, postgres } from "../../lib/definition/pipeline.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { connect, connectionFromUrl, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { openPostgresSource } from "../../lib/source/postgres/postgres-source.ts";
import { MemoryBackfills } from "../postgres/backfill-record.ts";
import { PUBLICATION } from "./capture/backlog.ts";
import { Endpoints } from "./capture/clients.ts";
import type { Bench } from "./main.ts";

const ROWS = 5_000_000;
const TICK_MS = 20;

const SETUP = (rows: number) => `
  CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL,
    total numeric(10,2) NOT NULL, paid boolean NOT NULL, note text, meta jsonb, placed_at timestamptz NOT NULL);
  INSERT INTO orders SELECT i, (i::bigint * 7919) % 50000, 'open', (i % 100000) / 100.0, i % 4 = 0,
    'Please leave the parcel with the neighbour on floor ' || i % 7 || '; the bell does not work, knock twice.',
    jsonb_build_object('channel', 'web', 'gift', i % 3 = 0, 'items', i % 9, 'weight', 1.25),
    timestamptz '2026-11-23 10:15:30.123456Z' + i * interval '37 ms'
  FROM generate_series(1, ${rows}) i;
  CREATE TABLE ticks (id bigserial PRIMARY KEY, at float8)`;

/** What one way of reading the table took. */
interface Reading {
  readonly seconds: number;
  readonly rowsPerSecond: number;
}

/** The rows of one table: by COPY alone, backfilled into a sink that acknowledges, and by the real capture program. */
export const backfill: Bench = {
  about: `Backfill on ${availableParallelism()} cores, beside plain COPY of the same rows.`,
  options: { rows: { type: "string" }, "no-capture": { type: "boolean" } },
  async run(say, values) {
    const rows = Number(values.rows ?? ROWS);
    if (!Number.isSafeInteger(rows) || rows < 1) throw new Error("--rows: write a whole number");
    const server = await startEmbeddedPostgres({
      settings: { max_wal_size: "64GB", checkpoint_timeout: "1h", autovacuum: "off" },
    });
    const sql = new pg.Client({ connectionString: server.url });
    sql.on("error", () => {});
    await sql.connect();
    try {
      say(`writing ${rows} rows …`);
      await sql.query(SETUP(rows));
      await sql.query("VACUUM ANALYZE orders");
      await sql.query("CHECKPOINT");
      const before = await plainCopy(server, rows);
      tell(say, "COPY orders TO STDOUT", before);
      const sink = await intoSink(server, sql, rows);
      tell(say, "backfill into a sink that acknowledges", sink);
      say(
        `  peak memory ${sink.peakMB} MB; ${sink.chunks} chunks; latency of ${sink.latencyMs.count} small commits meanwhile: median ${sink.latencyMs.median} ms, 99% ${sink.latencyMs.p99} ms, longest ${sink.latencyMs.longest} ms`,
      );
      const after = await plainCopy(server, rows);
      tell(say, "COPY orders TO STDOUT, again", after);
      const plain = Math.max(before.rowsPerSecond, after.rowsPerSecond);
      say(`  the sink gets ${Math.round((100 * sink.rowsPerSecond) / plain)}% of the faster COPY's rate`);
      const captured = values["no-capture"] ? undefined : await byCapture(server, sql, rows);
      if (captured) {
        tell(say, "the capture program to an endpoint that acknowledges", captured);
        say(`  peak memory ${Math.round(captured.peakMB)} MB`);
      }
      return { rows, copy: [before, after], sink, captured, load: loadavg()[0] };
    } finally {
      await sql.end().catch(() => {});
      await server.stop("immediate");
    }
  },
};

function tell(say: (line: string) => void, what: string, { seconds, rowsPerSecond }: Reading): void {
  say(`${what}: ${seconds.toFixed(1)} s, ${Math.round(rowsPerSecond / 1000)}k rows/s`);
}

function reading(rows: number, seconds: number): Reading {
  return { seconds, rowsPerSecond: rows / seconds };
}

/** The rows' bytes come to this process and are let go. */
async function plainCopy(server: EmbeddedPostgres, rows: number): Promise<Reading> {
  const client = await connect(connectionFromUrl(server.url));
  const counted = Promise.withResolvers<void>();
  const started = performance.now();
  let bytes = 0;
  client.connection.stream.removeAllListeners("data");
  client.connection.stream.on("data", (data: Buffer) => {
    bytes += data.length;
    // ReadyForQuery, idle: the last message of all.
    if (data.length >= 6 && data.readUInt32BE(data.length - 5) === 5 && data[data.length - 6] === 0x5a)
      counted.resolve();
  });
  client.connection.query("COPY public.orders TO STDOUT");
  await counted.promise;
  const took = reading(rows, (performance.now() - started) / 1000);
  client.connection.stream.destroy();
  await disconnect(client).catch(() => {});
  if (bytes === 0) throw new Error("nothing came");
  return took;
}

async function intoSink(server: EmbeddedPostgres, sql: pg.Client, rows: number) {
  const record = new MemoryBackfills();
  const stop = new AbortController();
  const source = await openPostgresSource({
    connection: connectionFromUrl(server.url),
    pipeline: definePipeline({
      name: "sink",
      source: postgres({
        tables: ["public.orders", "public.ticks"],
        acceptUnboundedWal: true,
        snapshot: "never",
      }),
    }),
    record: undefined,
    backfill: { record, pollMs: 20 },
    signal: stop.signal,
    log: { info: () => {}, warn: console.error, error: console.error },
  });
  let read = 0;
  let peak = 0;
  let batches = 0;
  const late: number[] = [];
  const done = Promise.withResolvers<number>();
  const consuming = (async () => {
    for await (const batch of source.changes) {
      for (const message of batch) {
        if (message.kind === "commit") source.acknowledge(message.endPlace);
        else if (message.kind === "idle") source.acknowledge(message.place);
        else if (message.kind === "receipt") message.stored();
        else if (message.table === "public.ticks")
          late.push(Date.now() - (JSON.parse(`${message.json}}}`).after.at as number));
        else if (++read === rows) done.resolve(performance.now());
      }
      if (++batches % 100 === 0) peak = Math.max(peak, process.memoryUsage.rss());
    }
  })();
  consuming.catch(done.reject);
  let ticking = true;
  const ticks = (async () => {
    while (ticking) {
      await sql.query("INSERT INTO ticks (at) VALUES ($1)", [Date.now()]);
      await delay(TICK_MS);
    }
  })();
  await record.request("public.orders", { sweep: false, requestedAt: Date.now() });
  while (record.of("public.orders").status === "requested") await delay(1);
  const started = performance.now();
  const ended = await done.promise;
  ticking = false;
  await ticks;
  const chunks = record.of("public.orders").progress?.chunk ?? 0;
  stop.abort();
  await consuming;
  await source.close();
  late.sort((a, b) => a - b);
  const at = (share: number) => late[Math.min(late.length - 1, Math.floor(late.length * share))] ?? 0;
  return {
    ...reading(rows, (ended - started) / 1000),
    peakMB: Math.round(peak / 1e6),
    chunks,
    latencyMs: { count: late.length, median: at(0.5), p99: at(0.99), longest: late.at(-1) ?? 0 },
  };
}

async function byCapture(server: EmbeddedPostgres, sql: pg.Client, rows: number) {
  await sql.query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE orders`);
  await sql.query("SELECT pg_create_logical_replication_slot('bench_capture', 'pgoutput')");
  await using endpoints = await Endpoints.start();
  const client = endpoints.tributary({ packing: "batch", delayMs: 0, keep: false, snapshot: "initial" });
  const { seconds, peakMB, cpuSeconds } = await client.read(
    { databaseUrl: server.url, changes: rows },
    "bench_capture",
  );
  return { ...reading(rows, seconds), peakMB, cpuSeconds };
}
