import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import pg from "pg";
import { afterEach, expect } from "vitest";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { TcpFaultProxy } from "../../../lib/testing/fault/tcp-proxy.ts";
import { invoke } from "../../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../../aws/emulated.ts";
import { eventually } from "../../eventually.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { CaptureBench, type Program } from "../capture-bench.ts";
import { becomesHealthy, onCall, runPrinted, sound, whatMends } from "./on-call.ts";

/* Failures of the database, and of the way to it: rows 1 to 13. */

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Environment = Readonly<Record<string, string>>;

async function make(
  databaseUrl: string,
  options: Parameters<typeof CaptureBench.create>[2] = {},
): Promise<CaptureBench> {
  const bench = await CaptureBench.create(aws(), databaseUrl, options);
  cleanups.push(() => bench.end());
  await sound(bench);
  return bench;
}

async function started(bench: CaptureBench, environment: Environment = {}): Promise<Program> {
  const task = bench.capture(environment);
  await task.printed("streaming from slot");
  return task;
}

async function stopped(task: Program): Promise<void> {
  task.signal("SIGTERM");
  expect(await task.ended).toBe(0);
}

/** A pipeline that has had one change, and whose task was stopped then. */
async function ranBefore(bench: CaptureBench, environment: Environment = {}): Promise<CaptureBench> {
  const task = await started(bench, environment);
  await bench.insert(1, 1);
  await bench.reached(1);
  await stopped(task);
  return bench;
}

/** Sees that a task started now gives these rows, and that the pipeline is healthy. */
async function goesOn(bench: CaptureBench, id: number, environment: Environment = {}): Promise<void> {
  await started(bench, environment);
  await bench.reached(id);
  await becomesHealthy(bench, environment);
}

/** The whole of a new epoch: the command, a task, and the rows that no slot had, read again. */
async function beginsAnew(bench: CaptureBench, command: string, missing: number): Promise<void> {
  expect(await runPrinted(bench, command)).toContain("NOT in the stream");
  await started(bench);
  await bench.insert(missing + 1, missing + 1);
  await bench.reached(missing + 1);
  expect((await bench.written()).map(({ id }) => id)).not.toContain(missing);
  await runPrinted(bench, "npx tributary-cdc backfill start --table public.orders");
  await bench.reached(missing);
  await becomesHealthy(bench);
}

withPostgres((server) => {
  const bench = async (options?: Parameters<typeof make>[1]) =>
    await make(await freshDatabase(server()), options);

  onCall(1, async (row) => {
    const b = await ranBefore(await bench());
    const setting = async (sql: string) => {
      await b.client.query(sql);
      await b.client.query("SELECT pg_reload_conf()");
    };
    await b.insert(2, 2);
    await setting("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    cleanups.push(() => setting("ALTER SYSTEM RESET max_slot_wal_keep_size"));
    await eventually(
      async () => {
        await b.client.query("SELECT pg_logical_emit_message(false, 'x', repeat('x', 3000000))");
        await b.client.query("SELECT pg_switch_wal()");
        await b.client.query("CHECKPOINT");
        const { rows } = await b.client.query(
          "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1",
          [b.slot],
        );
        return rows[0].wal_status === "lost";
      },
      { what: "a lost slot" },
    );
    expect(await b.capture().ended).toBe(2);
    await beginsAnew(b, await whatMends(row, b), 2);
  });

  onCall(2, async (row) => {
    const b = await ranBefore(await bench());
    await b.client.query("SELECT pg_drop_replication_slot($1)", [b.slot]);
    await b.insert(2, 2);
    expect(await b.capture().ended).toBe(2);
    await beginsAnew(b, await whatMends(row, b), 2);
  });

  onCall(3, async (row) => {
    const b = await ranBefore(await bench());
    const options = { connectionString: b.environment.DATABASE_URL, replication: "database" };
    const other = new pg.Client(options as pg.ClientConfig);
    other.on("error", () => {});
    await other.connect();
    cleanups.push(() => other.end().catch(() => {}));
    const publication = "proto_version '1', publication_names 'tributary_shop'";
    const reading = other.query(`START_REPLICATION SLOT "${b.slot}" LOGICAL 0/0 (${publication})`);
    reading.catch(() => {});
    await eventually(() => b.walsender(), { what: "another reader" });
    await b.insert(2, 2);
    b.capture();
    const statement = await whatMends(row, b);
    expect(statement).toBe(`SELECT pg_terminate_backend(${await b.walsender()});`);
    await b.client.query(statement);
    await b.reached(2);
    await becomesHealthy(b);
  });

  onCall(4, async (row) => {
    const b = await bench();
    const task = await started(b);
    await b.client.query("DROP PUBLICATION tributary_shop");
    await b.insert(1, 1);
    expect(await task.ended).toBe(2);
    await beginsAnew(b, await whatMends(row, b), 1);
  });

  onCall(5, async (row) => {
    const b = await bench();
    await b.client.query("CREATE TABLE others (id int PRIMARY KEY)");
    const task = await started(b);
    await b.client.query("ALTER PUBLICATION tributary_shop DROP TABLE orders");
    await b.insert(1, 1);
    expect(await task.ended).toBe(1);
    await started(b);
    await runPrinted(b, await whatMends(row, b));
    await b.reached(1);
    await becomesHealthy(b);
  });

  onCall(6, async (row) => {
    const b = await ranBefore(await bench());
    await b.client.query("CREATE TABLE bare (id int); INSERT INTO bare VALUES (2)");
    expect(await b.capture().ended).toBe(2);
    await b.client.query("UPDATE bare SET id = 3");
    await b.client.query(await whatMends(row, b));
    await started(b);
    await b.client.query("UPDATE bare SET id = 4");
    await b.reached(4);
    await becomesHealthy(b);
  });

  /** A database whose pipeline runs as a role of its own, with what capture needs and no more. */
  async function asReader() {
    const b = await bench();
    await b.client.query(
      "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'old'; GRANT SELECT ON orders TO reader",
    );
    cleanups.push(() => b.client.query("DROP OWNED BY reader; DROP ROLE reader").finally(() => b.end()));
    await b.client.query(
      "CREATE PUBLICATION tributary_shop FOR TABLE orders WITH (publish_via_partition_root = true)",
    );
    const url = new URL(b.environment.DATABASE_URL as string);
    Object.assign(url, { username: "reader", password: "old" });
    const environment = { DATABASE_URL: String(url) };
    await ranBefore(b, environment);
    return { b, environment };
  }

  onCall(8, async (row) => {
    const { b, environment } = await asReader();
    await b.client.query("REVOKE SELECT ON orders FROM reader");
    await b.insert(2, 2);
    expect(await b.capture(environment).ended).toBe(2);
    await b.client.query(await whatMends(row, b, { environment }));
    await goesOn(b, 2, environment);
  });

  onCall(9, async (row) => {
    const { b, environment } = await asReader();
    await b.client.query("ALTER ROLE reader PASSWORD 'new'");
    await b.insert(2, 2);
    expect(await b.capture(environment).ended).toBe(2);
    const statement = await whatMends(row, b, { environment });
    await b.client.query(statement.replace("…", "old"));
    await goesOn(b, 2, environment);
  });

  onCall(10, async (row) => {
    const b = await bench();
    const url = b.environment.DATABASE_URL as string;
    const { hostname: host, port } = new URL(url);
    const proxy = await TcpFaultProxy.start({ host, port: Number(port) });
    cleanups.push(() => proxy.stop());
    const environment = { DATABASE_URL: proxy.urlFor(url) };
    await started(b, environment);
    await proxy.refuse();
    for (const link of proxy.links) link.cut("rst");
    await b.insert(1, 1);
    const command = await whatMends(row, b, { environment });
    await proxy.accept();
    await b.reached(1);
    await eventually(() => runPrinted(b, command, environment).catch(() => false), {
      what: `${command} that finds nothing`,
      deadlineMs: 60_000,
    });
    await becomesHealthy(b, environment);
  });

  onCall(11, async (row) => {
    const b = await bench();
    const first = await started(b);
    const second = b.capture();
    const command = await whatMends(row, b, { healthy: true });
    expect(command).toBe(`kill ${second.pid}`);
    process.kill(Number(command.split(" ")[1]));
    expect(await second.ended).toBe(0);
    await b.insert(1, 1);
    await b.reached(1);
    expect(first.running).toBe(true);
    await becomesHealthy(b);
  });

  /** A bench with a store for what is held, and a consumer that is given what stands in the stream while `work` is under way. */
  async function holding() {
    const b = await bench({ source: { tables: ["public.orders"] } });
    const store = await mkdtemp(join(tmpdir(), "tributary-on-call-"));
    cleanups.push(() => rm(store, { recursive: true, force: true }));
    const environment = { TRIBUTARY_CLAIM_BUCKET: pathToFileURL(store).href };
    await started(b, environment);
    await b.insert(1, 1);
    await b.reached(1);
    const seen = new Set<number>();
    const handler = b.consumer.instance(
      (consumer) =>
        consumer.on("public.orders", ALL_OPERATIONS, (event) => {
          if ("after" in event && event.after) seen.add(Number(event.after.id));
        }),
      environment,
    );
    const consumed = async (id: number) =>
      await eventually(
        async () => {
          await invoke(handler, await b.records());
          return seen.has(id);
        },
        { what: `row ${id} in the consumer`, deadlineMs: 60_000 },
      );
    return { b, environment, consumed };
  }

  onCall(12, async (row) => {
    const { b, environment, consumed } = await holding();
    await b.client.query(
      "ALTER TABLE orders RENAME TO before; CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO before VALUES (2, 'x')",
    );
    await b.insert(3, 3);
    const command = await whatMends(row, b, { environment });
    await Promise.all([runPrinted(b, command, environment), consumed(1)]);
    await eventually(
      async () => {
        if (!(await isRunning(b))) await started(b, environment);
        return (await b.written()).some(({ id }) => id === 3);
      },
      { what: "the row of the table that has the name now", deadlineMs: 60_000 },
    );
    await consumed(3);
    await becomesHealthy(b, environment);
  });

  onCall(13, async (row) => {
    const { b, environment, consumed } = await holding();
    await b.client.query(
      "ALTER TABLE orders ADD sku int NOT NULL DEFAULT 7; ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE orders ADD PRIMARY KEY (id, sku)",
    );
    await b.client.query("INSERT INTO orders VALUES (2, 'x', 8)");
    const command = await whatMends(row, b, { environment });
    await Promise.all([runPrinted(b, command, environment), consumed(1)]);
    await consumed(2);
    await becomesHealthy(b, environment);
  });

  async function isRunning(b: CaptureBench): Promise<boolean> {
    return (await b.walsender()) !== null;
  }
});

withPostgres(
  (server) => {
    onCall(7, async (row) => {
      const b = await make(await freshDatabase(server()));
      expect(await b.capture().ended).toBe(2);
      await b.client.query(await whatMends(row, b));
      await server().restart();
      await started(b);
      const client = new pg.Client({ connectionString: b.environment.DATABASE_URL });
      await client.connect();
      await client.query("INSERT INTO orders VALUES (1, 'x')").finally(() => client.end());
      await b.reached(1);
      await becomesHealthy(b);
    });
  },
  { settings: { wal_level: "replica" } },
);
