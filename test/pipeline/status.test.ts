import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { Sightings } from "../../lib/admin/capture-standing.ts";
import { resourcesFromEnvironment } from "../../lib/admin/environment-resources.ts";
import type { PipelineStatus } from "../../lib/admin/pipeline-status.ts";
import { pipelineStatus } from "../../lib/admin/status.ts";
import { Operation } from "../../lib/consume/api/operation.ts";
import { readDefinition } from "../../lib/definition/file.ts";
import type { PipelineInput } from "../../lib/definition/pipeline.ts";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
const { signal } = new AbortController();

withPostgres((server) => {
  async function scene(options: Parameters<typeof CaptureBench.create>[2] = {}, encoding?: string) {
    const url = await freshDatabase(server(), encoding ? { encoding } : {});
    const bench = await CaptureBench.create(aws(), url, options);
    cleanups.push(() => bench.end());
    const claims = await mkdtemp(join(tmpdir(), "tributary-status-"));
    cleanups.push(() => rm(claims, { recursive: true, force: true }));
    const environment = { TRIBUTARY_CLAIM_BUCKET: pathToFileURL(claims).href };
    const place = bench.environment.TRIBUTARY_PIPELINE as string;
    /** The definition of the bench with another source, in a file of its own. */
    const defined = async (source: object): Promise<string> => {
      const { default: definition } = (await import(place)) as { default: PipelineInput };
      const file = join(dirname(place), `${randomUUID()}.mjs`);
      await writeFile(file, `export default ${JSON.stringify({ ...definition, source })};`);
      return file;
    };
    const look = async (file = place, sightings = new Sightings()) =>
      await pipelineStatus({
        resources: resourcesFromEnvironment("shop", bench.environment) as never,
        pipeline: await readDefinition(file),
        dynamodb: aws().dynamodb,
        sqs: aws().sqs,
        sightings,
        patient: false,
        signal,
      });
    const until = (what: string, is: (status: PipelineStatus) => boolean, file = place) => {
      let last: PipelineStatus | undefined;
      return eventually(
        async () => {
          last = await look(file);
          return is(last) && last;
        },
        { what: () => `${what}: ${JSON.stringify(last, null, 1)}`, deadlineMs: 60_000 },
      );
    };
    return { url, bench, environment, place, defined, look, until };
  }
  const state = ({ captures }: PipelineStatus) => captures.map((task) => task.state).join();

  test("a pipeline that was never started, one that runs and is healthy, one that was stopped in order", async () => {
    const { bench, look, until } = await scene();
    const never = await look();
    expect(never).toMatchObject({ healthy: false, captures: [{ state: "NEVER STARTED" }] });
    const capture = bench.capture();
    await until("running", (status) => state(status) === "RUNNING");
    await bench.insert(1, 5);
    await bench.reached(5);
    const behind = await until("behind", ({ consumers: [one] }) => one?.lag.state === "behind");
    expect(behind.healthy, "a moment's lag").toBe(true);
    const handler = bench.consumer.instance((consumer) =>
      consumer.on("public.orders", Operation.Create, () => {}),
    );
    await invoke(handler, await bench.records());
    const healthy = await until("caught up", ({ consumers: [one] }) => one?.lag.state === "caught up");
    expect(healthy).toMatchObject({
      healthy: true,
      problems: [],
      unknown: [],
      captures: [
        {
          state: "RUNNING",
          lease: { generation: 1, owner: expect.any(String) },
          source: { slot: bench.slot, epoch: 1 },
          figures: {
            connected: true,
            walStatus: "reserved",
            maxSlotWalKeepBytes: expect.any(Number),
            changes: 5,
          },
        },
      ],
      tables: [
        { table: "public.orders", topic: "shop.public.orders", slot: 1, backfill: { status: "none" } },
      ],
      consumers: [{ partitions: 1, checkpoint: expect.stringMatching(/^[0-9A-F]{24}[0-9]{10}$/), held: 0 }],
    });
    const printed = bench.command("status");
    expect(await printed.ended).toBe(0);
    const text = printed.lines.join("\n");
    expect(text).toMatch(/^shop {2}healthy/m);
    expect(text).toMatch(/^capture {2}RUNNING for \d+ s, reported \d+ s ago, 5 changes since its start$/m);
    expect(text).toMatch(/^ {2}slot +\w+ at [0-9A-F]+\/[0-9A-F]+, active, reserved$/m);
    expect(text).toMatch(/^ {2}WAL +\d+ \w+ held, /m);
    expect(text).toMatch(/^public\.orders +shop\.public\.orders +none$/m);
    expect(text).toMatch(
      new RegExp(`^${bench.consumer.name} +[0-9A-F]+/[0-9A-F]+#1 +none +0 +0 +0 +0 +0`, "m"),
    );
    capture.signal("SIGTERM");
    await capture.ended;
    const stopped = bench.command("status", "--json");
    expect(await stopped.ended).toBe(1);
    expect(JSON.parse(stopped.lines.find((line) => line.startsWith("{")) ?? "")).toMatchObject({
      healthy: false,
      captures: [{ state: "STOPPED" }],
      consumers: [{ lag: { state: "caught up" } }],
    });
  });

  test("a task that was killed is silent, also to a look that waits for it, and its successor runs", async () => {
    const { bench, until } = await scene();
    const lease = { TRIBUTARY_LEASE_MS: "1500" };
    const capture = bench.capture(lease);
    await until("running", (status) => state(status) === "RUNNING");
    capture.signal("SIGKILL");
    await capture.ended;
    const watch = bench.command("status", "--json", "--watch");
    const last = () =>
      JSON.parse(watch.lines.findLast((line) => line.startsWith("{")) ?? "null") as PipelineStatus | null;
    const silent = await eventually(() => last()?.captures[0]?.state === "SILENT" && last(), {
      what: () => JSON.stringify(last()),
      deadlineMs: 90_000,
    });
    expect(silent?.problems).toMatchObject([
      { part: "capture", message: expect.stringContaining("no longer reports") },
    ]);
    bench.capture(lease);
    await eventually(() => last()?.healthy, { what: () => JSON.stringify(last()), deadlineMs: 60_000 });
    watch.signal("SIGINT");
    expect(await watch.ended).toBe(0);
  });

  test("the error that ended a task stands there with code and remedy, and goes when it is mended", async () => {
    const { bench, until } = await scene();
    const first = bench.capture();
    await until("running", (status) => state(status) === "RUNNING");
    first.signal("SIGTERM");
    await first.ended;
    await bench.client.query("DROP TABLE orders");
    await bench.capture().ended;
    const failed = await until("failed", (status) => state(status) === "FAILED");
    expect(failed).toMatchObject({
      healthy: false,
      captures: [{ failure: { code: "PREFLIGHT", remedy: expect.any(String), retry: "stop" } }],
      problems: [{ part: "capture", code: "TABLE_PATTERN" }],
    });
    const printed = bench.command("status");
    expect(await printed.ended).toBe(1);
    expect(printed.lines.join("\n")).toContain(failed.captures[0]?.failure?.remedy ?? "a remedy");
    await bench.client.query("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    bench.capture();
    const again = await until("running again", (status) => state(status) === "RUNNING");
    expect(again.captures[0]?.failure).toBe(undefined);
  });

  test("a publication that was dropped: FAILED with its code and the command of its remedy", async () => {
    const { bench, until } = await scene();
    const capture = bench.capture();
    await until("running", (status) => state(status) === "RUNNING");
    const { rows } = await bench.client.query<{ pubname: string }>("SELECT pubname FROM pg_publication");
    await bench.client.query(`DROP PUBLICATION ${rows[0]?.pubname}`);
    await bench.insert(1, 1);
    await capture.ended;
    await bench.capture().ended;
    const failed = await until("failed", (status) => state(status) === "FAILED");
    expect(failed.problems[0]).toMatchObject({
      part: "capture",
      code: expect.any(String),
      command: expect.stringMatching(/^tributary epoch new --drop-slot$/),
    });
  });

  test("a database that is away: WAITING while the task runs, and while it is started again", async () => {
    const { url, bench, until } = await scene();
    const { hostname: host, port } = new URL(url);
    const proxy = await TcpFaultProxy.start({ host, port: Number(port) });
    cleanups.push(() => proxy.stop());
    const through = { DATABASE_URL: proxy.urlFor(url) };
    const capture = bench.capture(through);
    await until("running", (status) => state(status) === "RUNNING");
    await proxy.refuse();
    for (const link of proxy.links) link.cut("rst");
    const away = await until("waiting", (status) => state(status) === "WAITING");
    expect(away).toMatchObject({ healthy: false, captures: [{ waiting: { for: "database" } }] });
    await proxy.accept();
    await until("running again", (status) => state(status) === "RUNNING");
    capture.signal("SIGTERM");
    await capture.ended;
    await proxy.refuse();
    expect(await bench.capture(through).ended).toBe(1);
    const down = await until("waiting", (status) => state(status) === "WAITING");
    expect(down.captures[0]).toMatchObject({
      waiting: { for: "restart" },
      failure: { code: "POSTGRES_UNREACHABLE" },
    });
  });

  test("a change that holds its topic: HOLDING, with the release", async () => {
    const { bench, environment, until } = await scene({ source: { sqlAsciiEncoding: "utf-8" } }, "SQL_ASCII");
    await bench.client.query("SET client_encoding = 'SQL_ASCII'");
    bench.capture(environment);
    await until("running", (status) => state(status) === "RUNNING");
    await bench.client.query("INSERT INTO orders VALUES (1, chr(233))");
    const holding = await until(
      "holding",
      (status) => state(status) === "HOLDING" && status.problems.length > 0,
    );
    expect(holding).toMatchObject({
      healthy: false,
      problems: [
        {
          part: "topic shop.public.orders",
          code: "TEXT_ENCODING",
          command: "tributary capture release --topic shop.public.orders",
        },
      ],
    });
  });

  test("what a task waits for at its start: open transactions for its slot, then another one for the lease", async () => {
    const { bench, until } = await scene();
    const writer = new pg.Client({ connectionString: bench.environment.DATABASE_URL as string });
    await writer.connect();
    cleanups.push(() => writer.end());
    await writer.query("BEGIN; INSERT INTO orders VALUES (1, 'x')");
    bench.capture();
    const waiting = await until("open transactions", ({ captures: [task] }) => task?.waiting !== undefined);
    expect(waiting).toMatchObject({
      healthy: false,
      captures: [{ state: "WAITING", waiting: { for: "open transactions" } }],
      problems: [{ command: expect.stringContaining("pg_stat_activity") }],
    });
    await writer.query("COMMIT");
    await until("running", (status) => state(status) === "RUNNING");
    bench.capture();
    const both = await until("a second task", ({ captures: [task] }) => task?.newcomer?.state === "WAITING");
    expect(both).toMatchObject({
      healthy: true,
      captures: [{ state: "RUNNING", newcomer: { message: expect.stringContaining("capture lease") } }],
      problems: [{ severity: "note" }],
    });
  });

  test("a consumer with a parked key: how many changes wait behind it, and the redrive", async () => {
    const { bench, until } = await scene();
    bench.capture();
    await until("running", (status) => state(status) === "RUNNING");
    await bench.insert(1, 3);
    await bench.reached(3);
    const handler = bench.consumer.instance(
      (consumer) =>
        consumer.on("public.orders", Operation.Create, ({ after }) => {
          if (Number(after.id) === 2) throw new Error("refused");
        }),
      { TRIBUTARY_MAX_ATTEMPTS: "1" },
    );
    await eventually(
      async () => {
        await invoke(handler, await bench.records());
        return (await bench.consumer.parkedItems()).length > 0;
      },
      { what: "a parked key" },
    );
    const parked = await until("a parked key", ({ consumers: [one] }) => (one?.deadLetterKeys ?? 0) > 0);
    expect(parked).toMatchObject({
      healthy: false,
      consumers: [{ deadLetterKeys: 1, parked: 1, held: 0 }],
      problems: [
        {
          part: `consumer ${bench.consumer.name}`,
          command: `tributary dlq redrive --consumer ${bench.consumer.name}`,
        },
      ],
    });
  });

  test("of several slots each has its own state, and its own tables", async () => {
    const { bench, defined, place, until } = await scene();
    for (const table of ["t1", "t2", "t3"])
      await bench.client.query(`CREATE TABLE ${table} (id int PRIMARY KEY)`);
    const { default: definition } = (await import(place)) as { default: PipelineInput };
    const file = await defined({ ...definition.source, slots: 2 });
    const environment = { TRIBUTARY_PIPELINE: file };
    bench.capture(environment);
    const second = bench.capture({ ...environment, TRIBUTARY_SLOT: "2" });
    const both = await until("both", (status) => state(status) === "RUNNING,RUNNING", file);
    expect(both.healthy).toBe(true);
    expect(both.tables?.map(({ table }) => table).toSorted()).toEqual(
      ["orders", "t1", "t2", "t3"].map((name) => `public.${name}`),
    );
    expect(new Set(both.tables?.map(({ slot }) => slot))).toEqual(new Set([1, 2]));
    second.signal("SIGTERM");
    const one = await until("one", (status) => state(status) === "RUNNING,STOPPED", file);
    expect(one.problems).toMatchObject([{ part: "capture slot 2" }]);
  });

  test("a source that polls its tables has a state without a slot", async () => {
    const { bench, defined, until } = await scene();
    await bench.client.query("ALTER TABLE orders ADD changed timestamptz NOT NULL DEFAULT clock_timestamp()");
    const file = await defined({
      kind: "polling",
      tables: ["public.orders"],
      column: "changed",
      intervalMs: 100,
    });
    bench.capture({ TRIBUTARY_PIPELINE: file });
    const running = await until("running", (status) => state(status) === "RUNNING", file);
    expect(running).toMatchObject({
      healthy: true,
      captures: [{ figures: { connected: true } }],
      tables: [{ table: "public.orders" }],
    });
    expect(running.captures[0]?.walBudgetLeftPercent).toBe(undefined);
  });

  test("a state table that is not there is unknown, with the reason, and nothing is healthy", async () => {
    const { bench } = await scene();
    const printed = bench.run({ TRIBUTARY_STATE_TABLE: "missing" }, "status", "--json");
    expect(await printed.ended).toBe(1);
    expect(JSON.parse(printed.lines.find((line) => line.startsWith("{")) ?? "")).toMatchObject({
      healthy: false,
      captures: [{ state: "UNKNOWN" }],
      unknown: expect.arrayContaining([
        { part: "backfills", reason: expect.stringContaining('"missing" does not exist'), needed: true },
      ]),
    });
  });
});
