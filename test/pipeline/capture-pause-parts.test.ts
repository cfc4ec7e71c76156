import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import type { PipelineInput } from "../../lib/definition/pipeline.ts";
import { outboxTable } from "../../lib/publish/publish.ts";
import { readBackfill } from "../../lib/state/backfills.ts";
import { CAPTURE_METRIC, type Metric } from "../../lib/telemetry/metrics.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { matchMetrics } from "../cdk/matched-metrics.ts";
import { basics, definition, synthesize } from "../cdk/stacks.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const PAUSED = "capture is paused by ada";
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

withPostgres((server) => {
  async function scene() {
    const url = await freshDatabase(server());
    const b = await CaptureBench.create(aws(), url);
    cleanups.push(() => b.end());
    /** The environment with the definition of the bench, and another source. */
    const sourced = async (change: (source: object) => object) => {
      const file = b.environment.TRIBUTARY_PIPELINE as string;
      const { default: definition } = (await import(file)) as { default: PipelineInput };
      const other = join(dirname(file), `${randomUUID()}.mjs`);
      await writeFile(
        other,
        `export default ${JSON.stringify({ ...definition, source: change(definition.source) })};`,
      );
      return { TRIBUTARY_PIPELINE: other };
    };
    const verb = async (environment: Readonly<Record<string, string>>, ...words: string[]) => {
      const command = b.run(environment, ...words);
      return { code: await command.ended, text: command.lines.join("\n") };
    };
    const ids = async () => (await b.written()).map(({ id }) => id);
    return { url, b, sourced, verb, ids };
  }

  test("paused in the middle of a backfill whose chunk waits for a lock: it comes to rest, and goes on with the rest of the rows", async () => {
    const { url, b, verb } = await scene();
    // The chunk with row 60,000 waits as long as the test wants, as it would for a lock on the table.
    await b.client.query(`
      CREATE FUNCTION public.gate(id int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
        IF id = 60000 THEN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); END IF;
        RETURN true;
      END $$;
      INSERT INTO orders SELECT n, 'old' FROM generate_series(1, 61000) n`);
    const holder = new pg.Client({ connectionString: url });
    await holder.connect();
    cleanups.push(() => holder.end());
    await holder.query("SELECT pg_advisory_lock(7)");
    const task = b.capture();
    await task.printed("streaming from slot");
    expect(
      await verb({}, "backfill", "start", "--table", "public.orders", "--where", "public.gate(id)"),
    ).toMatchObject({
      code: 0,
    });
    const { signal } = new AbortController();
    const place = { dynamodb: aws().dynamodb, table: b.consumer.table, pipeline: "shop", signal };
    const waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted";
    await eventually(async () => (await b.client.query(waiting)).rowCount === 1, {
      what: "a chunk that waits for the lock",
    });
    const before = await eventually(
      async () => (await readBackfill(place, "public.orders"))?.progress?.rows,
      {
        what: "rows of chunks before",
      },
    );
    expect(before).toBeLessThan(60_000);
    const paused = await verb({}, "capture", "pause", "--by", "ada");
    expect(paused).toMatchObject({ code: 0, text: expect.stringContaining("the task stands still.") });
    expect((await b.client.query(waiting)).rowCount).toBe(0);
    // Rows that change meanwhile come by the log, and nothing older of them behind that.
    await b.client.query("UPDATE orders SET note = 'new' WHERE id IN (1, 60000, 61000)");
    await holder.query("SELECT pg_advisory_unlock(7)");
    expect((await verb({}, "capture", "resume")).code).toBe(0);
    await eventually(async () => (await readBackfill(place, "public.orders"))?.progress?.finishedAt, {
      what: "the end of the backfill",
      deadlineMs: 60_000,
    });
    const last = new Map<number, string>();
    const rows = await rowsOf(b);
    for (const { id, note } of rows) last.set(id, note);
    expect(range(1, 61_000).filter((id) => !last.has(id))).toEqual([]);
    expect([1, 60_000, 61_000].map((id) => last.get(id))).toEqual(["new", "new", "new"]);
    // What was done before the pause is not read again, but for the chunks that were under way.
    expect(rows.length).toBeLessThan(61_000 + 61_000 - (before as number) + 4);
  });

  test("a table that is locked: a backfill is asked for without waiting for the lock, and a pause does not wait for it either", async () => {
    const { url, b, verb, ids } = await scene();
    await b.client.query("INSERT INTO orders VALUES (1, 'old'), (2, 'old')");
    const task = b.capture();
    await task.printed("streaming from slot");
    const holder = new pg.Client({ connectionString: url });
    await holder.connect();
    cleanups.push(() => holder.end());
    await holder.query("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    const started = await verb({}, "backfill", "start", "--table", "public.orders");
    expect(started).toMatchObject({ code: 0, text: expect.stringContaining("another session has locked") });
    const waiting = `SELECT FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted`;
    await eventually(async () => (await b.client.query(waiting)).rowCount === 1, {
      what: "a chunk that waits for the lock",
    });
    const paused = await verb({}, "capture", "pause", "--by", "ada", "--timeout", "30");
    expect(paused).toMatchObject({ code: 0, text: expect.stringContaining("the task stands still.") });
    expect((await verb({}, "capture", "resume")).code).toBe(0);
    await holder.query("ROLLBACK");
    await eventually(async () => (await ids()).length === 2, { what: "the rows", deadlineMs: 60_000 });
  });

  /** Rows as they stand in the stream, in order. */
  async function rowsOf(b: CaptureBench) {
    return (await b.records()).flatMap(({ kinesis }) => {
      const { events } = JSON.parse(Buffer.from(kinesis.data, "base64").toString()) as {
        events: { after: { id: number; note: string } | null }[];
      };
      return events.flatMap(({ after }) => after ?? []);
    });
  }

  test("of two slots both stand still; with one task down it says so, and the one that starts stands still too", async () => {
    const { b, sourced, verb, ids } = await scene();
    await b.client.query("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    const two = await sourced((source) => ({ ...source, slots: 2 }));
    const second = { ...two, TRIBUTARY_SLOT: "2" };
    const tasks = [b.capture(two), b.capture(second)] as const;
    for (const task of tasks) await task.printed("streaming from slot");
    const both = await verb(two, "capture", "pause", "--by", "ada");
    expect(both).toMatchObject({
      code: 0,
      text: expect.stringMatching(/slot 1: the task stands still\.[\s\S]*slot 2: the task stands still\./),
    });
    const active = "SELECT FROM pg_replication_slots WHERE active AND database = current_database()";
    expect((await b.client.query(active)).rowCount).toBe(0);
    for (const table of ["orders", "a", "b"]) await b.client.query(`INSERT INTO ${table} (id) VALUES (1)`);
    expect((await verb(two, "capture", "resume")).code).toBe(0);
    await eventually(async () => (await ids()).length === 3, { what: "the rows of all tables" });

    tasks[1].signal("SIGTERM");
    expect(await tasks[1].ended).toBe(0);
    const one = await verb(two, "capture", "pause", "--by", "ada");
    expect(one).toMatchObject({
      code: 0,
      text: expect.stringMatching(/slot 1: the task stands still\.[\s\S]*slot 2: no task runs/),
    });
    const started = b.capture(second);
    await started.printed(PAUSED);
    for (const table of ["orders", "a", "b"]) await b.client.query(`INSERT INTO ${table} (id) VALUES (2)`);
    expect((await verb(two, "capture", "resume")).code).toBe(0);
    await eventually(async () => (await ids()).length === 6, { what: "the rows of all tables" });
  });

  test("triggers: paused it reads nothing, goes on without loss, and prints what its alarms and dashboard ask for", async () => {
    const { b, sourced, verb, ids } = await scene();
    const source = { kind: "triggers" as const, tables: ["public.orders"], intervalMs: 100 };
    const triggers = await sourced(() => source);
    expect((await verb(triggers, "triggers", "install")).code).toBe(0);
    const task = b.capture({ ...triggers, TRIBUTARY_METRICS_SECONDS: "1", TRIBUTARY_STAGE: "Test" });
    const connected = (value: number) =>
      eventually(() => task.lines.some((line) => new RegExp(`"SourceConnected":\\[?${value}`).test(line)), {
        what: `SourceConnected ${value}`,
      });
    await connected(1);
    await b.insert(1, 10);
    await b.reached(10);
    const paused = await verb(triggers, "capture", "pause", "--by", "ada");
    expect(paused.code, paused.text).toBe(0);
    expect(paused.text).toMatch(/the task stands still\.\nWhat is changed waits in its tables/);
    await b.insert(11, 20);
    await connected(0);
    expect(await ids()).toEqual(range(1, 10));
    expect((await verb(triggers, "capture", "resume")).code).toBe(0);
    await b.reached(20);
    expect(await ids()).toEqual(range(1, 20));

    // The stack of this pipeline shows what its task printed, and asks it for nothing else.
    const { template } = synthesize((stack) => ({
      definition: definition({
        source,
        consumers: [{ name: b.consumer.name, entry: "functions/customer-view.ts", topics: ["*"] }],
      }),
      ...basics(stack),
    }));
    const { hidden, silent } = matchMetrics(template, task.lines, "shop");
    expect(hidden).toEqual([]);
    const ofCapture = Object.values<Metric>(CAPTURE_METRIC).map(({ name }) => name);
    // No transaction is open for long.
    const rare = CAPTURE_METRIC.oldestTransactionSeconds.name;
    expect(silent.filter((name) => ofCapture.includes(name) && name !== rare)).toEqual([]);
  });

  test("outbox: two tasks that share the lanes stand still, and publish each event behind the pause", async () => {
    const { b, sourced, verb } = await scene();
    const outbox = await sourced(() => ({ kind: "outbox" }));
    expect((await verb(outbox, "outbox", "install")).code).toBe(0);
    const publish = async (from: number, to: number) => {
      for (const n of range(from, to))
        await outboxTable().publish(b.client, {
          ...{ aggregateType: "order", aggregateId: String(n), type: "Placed", payload: { n } },
        });
    };
    const told = async () =>
      (await b.records()).flatMap(({ kinesis }) => {
        const { events } = JSON.parse(Buffer.from(kinesis.data, "base64").toString()) as {
          events: { after: { payload: { n: number } } | null }[];
        };
        return events.flatMap(({ after }) => after?.payload.n ?? []);
      });
    const tasks = [b.capture(outbox), b.capture(outbox)];
    const owners = "SELECT DISTINCT owner FROM outbox_lane WHERE owner IS NOT NULL";
    await eventually(async () => (await b.client.query(owners)).rowCount, { what: "lanes that are taken" });
    await publish(1, 10);
    await eventually(async () => new Set(await told()).size === 10, { what: "what was published before" });
    const paused = await verb(outbox, "capture", "pause", "--by", "ada");
    expect(paused.code, paused.text).toBe(0);
    for (const task of tasks) await task.printed(PAUSED);
    expect((await b.client.query(owners)).rowCount).toBe(0);
    const before = await told();
    await publish(11, 20);
    expect((await verb(outbox, "capture", "resume")).code).toBe(0);
    await eventually(async () => new Set(await told()).size === 20, { what: "what was published meanwhile" });
    expect((await told()).slice(before.length).toSorted((a, c) => a - c)).toEqual(range(11, 20));
  });
});
