import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { type Backfill, readBackfill } from "../../../lib/state/backfills.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
import { DONE, invoke } from "../../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../../aws/emulated.ts";
import { eventually } from "../../eventually.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { CaptureBench, type Program } from "../capture-bench.ts";
import { HELD_SCHEMA, holdOrders } from "./orders-held.ts";

const aws = emulatedAws();
const ENTRY = fileURLToPath(new URL("./orders-held.ts", import.meta.url));
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  /** A pipeline of the table `orders` whose consumer keeps its rows in a database of its own. */
  async function bench(source: object = {}) {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()), {
      partitions: 4,
      source: { snapshot: "when-needed", ...source },
      entry: ENTRY,
    });
    cleanups.push(() => b.end());
    const sinkUrl = await freshDatabase(server());
    const sink = new pg.Pool({ connectionString: sinkUrl });
    cleanups.push(() => sink.end());
    await sink.query(HELD_SCHEMA);
    const handler = b.consumer.instance((consumer) => holdOrders(consumer, sink));
    const { signal } = new AbortController();
    const store: StatePlace = {
      ...{ dynamodb: aws().dynamodb, table: b.consumer.table, pipeline: "shop", signal },
    };
    const rows = async (of: pg.Client | pg.Pool, select: string) =>
      (await of.query<{ id: string; note: string }>(select)).rows.map(({ id, note }) => `${id} ${note}`);
    return {
      b,
      sink,
      sinkUrl,
      consume: async () => expect(await invoke(handler, await b.records())).toEqual(DONE),
      source: () => rows(b.client, "SELECT id, note FROM orders ORDER BY id::text"),
      held: () => rows(sink, "SELECT id, note FROM held WHERE NOT deleted ORDER BY id"),
      backfill: (table: string, what: string, condition: (backfill: Backfill) => boolean) =>
        eventually(
          async () => {
            const found = await readBackfill(store, table);
            return found && condition(found) ? found : undefined;
          },
          { what: `a backfill of ${table} that is ${what}` },
        ),
    };
  }
  async function stop(capture: Program): Promise<void> {
    capture.signal("SIGTERM");
    expect(await capture.ended).toBe(0);
  }
  const done = (run: number) => (backfill: Backfill) => backfill.run === run && backfill.status === "done";

  test("after a lost slot and a new epoch, rows deleted meanwhile leave the sink with the sweep, others stay", async () => {
    const { b, sink, consume, source, held, backfill } = await bench();
    await b.insert(1, 20);
    const first = b.capture();
    expect(await backfill("public.orders", "done", done(1))).toMatchObject({ progress: { rows: 20 } });
    await b.insert(21, 30);
    await b.reached(30);
    await stop(first);
    await consume();
    expect(await held()).toEqual(await source());

    await b.client.query("SELECT pg_drop_replication_slot($1)", [b.slot]);
    await b.client.query("DELETE FROM orders WHERE id IN (3, 7, 25)");
    await b.client.query("UPDATE orders SET note = 'changed meanwhile' WHERE id IN (5, 26)");
    await b.insert(31, 33);
    const epoch = b.command("epoch", "new", "--confirm", "shop");
    expect([await epoch.ended, ...epoch.lines]).toEqual([0, ...epoch.lines]);
    const second = b.capture();
    await second.printed("streaming from slot");
    await b.client.query("UPDATE orders SET note = 'live' WHERE id = 6");
    await b.client.query("DELETE FROM orders WHERE id = 8");
    expect(await backfill("public.orders", "done", done(2))).toMatchObject({
      ...{ epoch: 2, request: { sweep: true } },
    });
    await stop(second);

    // Before the sweep is there, so are the rows that are gone.
    expect((await held()).map((row) => row.split(" ")[0])).toEqual(expect.arrayContaining(["3", "7", "25"]));
    await consume();
    expect(await held()).toEqual(await source());
    const { rows } = await sink.query("SELECT count(*)::int AS n FROM held WHERE position < '00000002'");
    expect(rows).toEqual([{ n: 0 }]);
    // All of it again changes nothing.
    await consume();
    expect(await held()).toEqual(await source());
  });

  test("a table added to the definition is backfilled at the next start, the others are not", async () => {
    const { b, consume, source, held, backfill } = await bench({ tables: ["public.items"] });
    await b.client.query("CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)");
    await b.insert(1, 50);
    const first = b.capture();
    await backfill("public.items", "done", done(1));
    await stop(first);
    const file = b.environment.TRIBUTARY_PIPELINE as string;
    const definition = await readFile(file, "utf8");
    await writeFile(file, definition.replace('["public.items"]', '["public.items","public.orders"]'));
    const second = b.capture();
    await backfill("public.orders", "done", done(1));
    await stop(second);
    expect(await backfill("public.items", "left alone", done(1))).toMatchObject({ progress: { rows: 1 } });
    await consume();
    expect(await held()).toEqual(await source());
    expect(await held()).toHaveLength(50);
  });

  test.for([
    // By then `initial` knows each table, whatever the epoch; `always` asks nobody.
    { snapshot: "initial", runs: 1 },
    { snapshot: "always", runs: 3 },
  ])(
    "snapshot $snapshot: at three starts, the last one in a new epoch, existing rows are read $runs times",
    async ({ snapshot, runs }) => {
      const { b, consume, source, held, backfill } = await bench({ snapshot });
      await b.insert(1, 3);
      for (const start of [1, 2, 3]) {
        if (start === 3) {
          const epoch = b.command("epoch", "new", "--drop-slot", "--confirm", "shop");
          expect([await epoch.ended, ...epoch.lines]).toEqual([0, ...epoch.lines]);
        }
        const capture = b.capture();
        // Here it is decided what is read, and on record.
        await capture.printed("streaming from slot");
        await backfill("public.orders", `done at start ${start}`, done(Math.min(start, runs)));
        await b.client.query("INSERT INTO orders VALUES ($1, 'live')", [10 + start]);
        await b.reached(10 + start);
        await stop(capture);
      }
      const records = (await b.records()).flatMap(
        ({ kinesis }) => JSON.parse(Buffer.from(kinesis.data, "base64").toString()).events,
      );
      const read = Map.groupBy(
        records.filter(({ op }: { op: string }) => op === "r"),
        ({ after }: { after: { id: number } }) => after.id,
      );
      const times = [...read].map(([id, all]) => [id, all.length]).sort(([a = 0], [b = 0]) => a - b);
      const live = [11, 12].map((id) => [id, runs - (id - 10)]).filter(([, n = 0]) => n > 0);
      expect(times).toEqual([...[1, 2, 3].map((id) => [id, runs]), ...live]);
      await consume();
      expect(await held()).toEqual(await source());
    },
  );

  test("a running backfill pauses, resumes and is cancelled by command", async () => {
    const { b, backfill } = await bench({ snapshot: "never", backfill: { rowsPerSecond: 400 } });
    await b.client.query("INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 20000) i; ANALYZE orders");
    const capture = b.capture();
    await capture.printed("streaming from slot");
    const command = async (...args: string[]) => {
      const run = b.command("backfill", ...args);
      expect([await run.ended, ...run.lines]).toEqual([0, ...run.lines]);
      return run.lines.join("\n");
    };
    const of = ["--table", "public.orders"];
    expect(await command("start", ...of)).not.toContain("No capture task is alive");
    await backfill("public.orders", "under way", ({ progress }) => (progress?.rows ?? 0) > 0);
    await command("pause", ...of);
    const paused = await backfill("public.orders", "paused", ({ status }) => status === "paused");
    expect(await command("status")).toMatch(/public\.orders +1 +paused +[\d,]+ +\d+%/);
    await command("resume", ...of);
    const rows = paused.progress?.rows ?? 0;
    await backfill("public.orders", "going on", ({ progress }) => (progress?.rows ?? 0) > rows);
    const watch = b.command("backfill", "status", "--watch", "--json");
    await watch.printed('"status":"running"');
    await command("cancel", ...of);
    const cancelled = await backfill("public.orders", "cancelled", ({ status }) => status === "cancelled");
    expect(cancelled.progress?.rows).toBeLessThan(20_000);
    expect(await watch.ended).toBe(0);
    expect(JSON.parse(watch.lines.at(-1) ?? "")).toMatchObject([
      { table: "public.orders", status: "cancelled" },
    ]);
    // The stream went on, and goes on.
    await b.client.query("INSERT INTO orders VALUES (20001, 'live')");
    await b.reached(20_001);
    await stop(capture);
  });

  test("some rows, for one consumer alone: each says for whom it is, nothing is swept", async () => {
    const { b, consume, held, backfill } = await bench({ snapshot: "never" });
    await b.insert(1, 10);
    const capture = b.capture();
    await capture.printed("streaming from slot");
    await b.insert(11, 11);
    const { name } = b.consumer;
    const start = b.command(
      ...[
        "backfill",
        "start",
        "--table",
        "public.orders",
        "--where",
        "id BETWEEN 6 AND 8",
        "--consumer",
        name,
      ],
    );
    expect([await start.ended, ...start.lines]).toEqual([0, ...start.lines]);
    await backfill("public.orders", "done", done(1));
    await stop(capture);
    await consume();
    expect(await held()).toEqual(["11 x", "6 x", "7 x", "8 x"]);
    const events = (await b.records()).flatMap(
      ({ kinesis }) => JSON.parse(Buffer.from(kinesis.data, "base64").toString()).events,
    );
    const ofBackfill = events.filter(({ op }) => op !== "c");
    expect(new Set(ofBackfill.map(({ op }) => op))).toEqual(new Set(["r", "m"]));
    for (const { source } of ofBackfill) expect(source.backfill).toEqual({ run: 1, consumer: name });
  });

  test("verify: lag is no loss; a row that the sink lost is named by its key", async () => {
    const { b, sink, sinkUrl, consume, backfill } = await bench();
    await b.insert(1, 40);
    const capture = b.capture();
    await backfill("public.orders", "done", done(1));
    await consume();
    const verify = (...args: string[]) =>
      b.run(
        { SINK_URL: sinkUrl },
        "verify",
        "--table",
        "public.orders",
        "--consumer",
        b.consumer.name,
        ...args,
      );
    const equal = verify();
    expect([await equal.ended, ...equal.lines]).toEqual([0, expect.stringContaining("40 rows"), "Equal."]);

    await b.client.query("UPDATE orders SET note = 'newer' WHERE id = 9");
    const lagging = verify("--timeout", "1");
    expect(await lagging.ended).toBe(2);
    expect(lagging.lines.join("\n")).toMatch(/Lag: .* is behind in 4 partitions/);
    expect(lagging.lines.join("\n")).not.toMatch(/missing|different|extra/);

    await b.client.query("UPDATE orders SET note = 'poison' WHERE id = 30");
    await sink.query("DELETE FROM held WHERE id = '17'");
    await sink.query("UPDATE held SET note = 'secret' WHERE id = '18'");
    const running = verify("--timeout", "60");
    while (running.running) await consume();
    expect([await running.ended, ...running.lines]).toEqual([1, ...running.lines]);
    const told = running.lines.join("\n");
    expect(told).toMatch(/missing +id=17$/m);
    expect(told).toMatch(/different +id=18 in note$/m);
    expect(told).toMatch(/different +id=30 in note \(its key has an open dead letter: redrive it\)$/m);
    expect(told).not.toMatch(/id=9|secret/);
    await stop(capture);
  });
});
