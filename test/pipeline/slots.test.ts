import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { Operation } from "../../lib/consume/api/operation.ts";
import type { ChangeEvent } from "../../lib/consume/run/event.ts";
import {
  definePipeline,
  type LogPipeline,
  type PipelineInput,
  postgres,
} from "../../lib/definition/pipeline.ts";
import { wantedSlot } from "../../lib/source/postgres/slots/assignment.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench, type Program } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const TABLES = ["t1", "t2", "t3", "t4", "t5", "t6"];
const KEYS = 8;
const LEASE = { TRIBUTARY_LEASE_MS: "1500" };

/** The pipeline of the bench with two slots. */
function two(): LogPipeline {
  return definePipeline({ name: "shop", source: postgres({ tables: ["public.*"], slots: 2 }) });
}

withPostgres((server) => {
  async function bench() {
    const url = await freshDatabase(server());
    const b = await CaptureBench.create(aws(), url, { partitions: 4 });
    cleanups.push(() => b.end());
    for (const table of TABLES) await b.client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, n int)`);
    return { b, url };
  }

  /** The environment of a slot's task, by a definition with so many slots. */
  async function task(
    b: CaptureBench,
    slots: number,
    slot: number,
    more: object = {},
  ): Promise<Record<string, string>> {
    const file = b.environment.TRIBUTARY_PIPELINE as string;
    const { default: definition } = (await import(file)) as { default: PipelineInput };
    const spread = join(file, "..", `slots-${randomUUID()}.mjs`);
    const source = { ...definition.source, slots, ...more };
    await writeFile(spread, `export default ${JSON.stringify({ ...definition, source })};`);
    return { ...LEASE, TRIBUTARY_PIPELINE: spread, ...(slot > 1 ? { TRIBUTARY_SLOT: String(slot) } : {}) };
  }

  /** Counts up rows of several tables in each transaction, from two sessions, until stopped; gives the last counts. */
  function workload(url: string) {
    const stop = new AbortController();
    const run = async (session: number) => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      for (let i = 0; !stop.signal.aborted; i++) {
        const tables = [0, 1, 2].map((k) => TABLES[(i * 2 + k * (session + 1)) % TABLES.length] as string);
        // In one order, so that they do not wait for each other in a circle.
        const statements = [...new Set(tables)].sort().map((table) => {
          const id = (i * 3 + session) % KEYS;
          return `INSERT INTO ${table} VALUES (${id}, 1) ON CONFLICT (id) DO UPDATE SET n = ${table}.n + 1`;
        });
        await client.query(`BEGIN; ${statements.join("; ")}; COMMIT`);
        // Steadily, over all that happens meanwhile, and not more than a reader of all records can bear.
        await delay(10);
      }
      await client.end();
    };
    const running = Promise.all([run(0), run(1)]);
    const ended = async () => {
      stop.abort();
      await running;
    };
    cleanups.push(ended);
    return ended;
  }

  async function counts(b: CaptureBench): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>();
    for (const table of TABLES) {
      const { rows } = await b.client.query<{ id: number; n: number }>(`SELECT id, n FROM ${table}`);
      for (const { id, n } of rows) found.set(`${table}/${id}`, n);
    }
    return found;
  }

  /** Each effect of a key counts on from the one before: nothing is missing, twice, or out of order. */
  async function tookEffect(b: CaptureBench): Promise<ReadonlyMap<string, number>> {
    const effects = new Map<string, number>();
    const wrong: string[] = [];
    const count = ({ after, source }: ChangeEvent) => {
      const { id, n } = after as { id: number; n: number };
      const key = `${source.table}/${id}`;
      if (n !== (effects.get(key) ?? 0) + 1) wrong.push(`${key}: ${n} after ${effects.get(key)}`);
      effects.set(key, n);
    };
    const handler = b.consumer.instance((consumer) =>
      consumer.on("public.*", Operation.Create, count).on("public.*", Operation.Update, count),
    );
    expect(await invoke(handler, await b.records())).toEqual(DONE);
    expect(wrong).toEqual([]);
    return effects;
  }

  /** Starts a program again whenever it ends with an error that may pass. */
  function kept(b: CaptureBench, environment: Readonly<Record<string, string>>) {
    let current: Program = b.capture(environment);
    const lines: string[] = [];
    let stopped = false;
    const running = (async () => {
      while (!stopped) {
        const code = await current.ended;
        lines.push(...current.lines);
        if (code === 2) lines.push("STOPPED FOR GOOD");
        if (stopped || code === 2) return;
        current = b.capture(environment);
      }
    })();
    return {
      get lines() {
        return [...lines, ...current.lines];
      },
      kill: () => current.signal("SIGKILL"),
      stop: async () => {
        stopped = true;
        current.signal("SIGTERM");
        await running;
      },
    };
  }

  test("topics move to a new slot under load, with kill -9 on both sides: each change once, in order", async () => {
    const { b, url } = await bench();
    const moving = TABLES.filter((table) => wantedSlot(two(), { schema: "public", table }) === 2);
    // What this test is about.
    expect(moving.length).toBeGreaterThan(1);
    expect(moving.length).toBeLessThan(TABLES.length);

    const one = b.capture({ ...LEASE });
    await one.printed("streaming from slot");
    const stopWork = workload(url);
    await eventually(async () => (await b.records()).length > 20, { what: "records" });
    one.signal("SIGTERM");
    expect(await one.ended).toBe(0);

    // The first slot's task agrees on two slots, and dies: what it has not written yet piles up.
    const first = b.capture(await task(b, 2, 1));
    await first.printed("streaming from slot");
    first.signal("SIGKILL");
    await first.ended;
    const second = await task(b, 2, 2);
    const killed = b.capture({ ...second, TRIBUTARY_FAILPOINTS: "table-moved=kill@2" });
    expect(await killed.ended).toBe("SIGKILL");
    const waiting = kept(b, second);
    cleanups.push(() => waiting.stop());
    await eventually(() => waiting.lines.some((line) => line.includes("tables have moved here")), {
      what: "the second slot to wait for the first",
    });
    const moved = await b.client.query(
      "SELECT tablename FROM pg_publication_tables WHERE pubname LIKE '%slot2'",
    );
    expect(moved.rows.map(({ tablename }) => tablename).sort()).toEqual([...moving].sort());

    const donor = kept(b, await task(b, 2, 1));
    cleanups.push(() => donor.stop());
    await eventually(() => waiting.lines.some((line) => line.includes("streaming from slot")), {
      what: "the second slot to stream",
    });
    donor.kill();
    waiting.kill();
    await stopWork();
    const wanted = await counts(b);
    await eventually(
      async () => JSON.stringify([...(await lastWritten(b))].sort()) === JSON.stringify([...wanted].sort()),
      {
        what: "all counts in the stream",
      },
    );
    await donor.stop();
    await waiting.stop();
    expect(await tookEffect(b)).toEqual(wanted);
    expect([...donor.lines, ...waiting.lines]).not.toContain("STOPPED FOR GOOD");

    // Its tables would have no reader: nothing is touched.
    const fewer = b.capture(await task(b, 1, 1));
    expect(await fewer.ended).toBe(2);
    expect(fewer.lines.join()).toContain("SLOTS_REDUCED");
    expect(await slots(b)).toHaveLength(2);
    const epoch = b.run(await task(b, 1, 1), "epoch", "new", "--drop-slot", "--confirm", "shop");
    expect([await epoch.ended, ...epoch.lines]).toEqual([0, ...epoch.lines]);
    expect(await slots(b)).toEqual([]);
    const alone = b.capture(await task(b, 1, 1));
    await alone.printed("streaming from slot");
    expect(alone.lines.join()).toContain("epoch 2 begins");
    expect(await published(b)).toEqual(["orders", ...TABLES]);
  });

  test("a running slot lets tables go; one without tables is taken back; teardown drops all", async () => {
    const { b } = await bench();
    const one = kept(b, { ...LEASE });
    await eventually(() => one.lines.some((line) => line.includes("streaming from slot")), {
      what: "slot 1",
    });
    await one.stop();
    // By a definition whose tables stay where they are, as in a deploy that is rolled back.
    const staying = TABLES.filter((table) => wantedSlot(two(), { schema: "public", table }) === 1);
    const only = { tables: staying.map((table) => `public.${table}`) };
    const first = b.capture(await task(b, 2, 1, only));
    const second = b.capture(await task(b, 2, 2, only));
    await first.printed("streaming from slot");
    await second.printed("streaming from slot");
    for (const program of [first, second]) {
      program.signal("SIGTERM");
      expect(await program.ended).toBe(0);
    }
    expect(await slots(b)).toHaveLength(2);
    const back = b.capture(await task(b, 1, 1, only));
    await back.printed("streaming from slot");
    expect(back.lines.join()).toContain("slot 2 is given up");
    expect(await slots(b)).toHaveLength(1);
    back.signal("SIGTERM");
    expect(await back.ended).toBe(0);

    // All tables now: the first slot's task runs while they go.
    const donor = kept(b, await task(b, 2, 1));
    cleanups.push(() => donor.stop());
    await eventually(() => donor.lines.some((line) => line.includes("streaming from slot")), {
      what: "slot 1",
    });
    const taker = kept(b, await task(b, 2, 2));
    cleanups.push(() => taker.stop());
    await eventually(() => taker.lines.some((line) => line.includes("streaming from slot")), {
      what: "slot 2",
    });
    expect(donor.lines.join()).toContain("TABLES_MOVED");
    for (const table of TABLES) await b.client.query(`INSERT INTO ${table} VALUES (1, 1)`);
    await eventually(async () => (await lastWritten(b)).size === TABLES.length, {
      what: "a row of each table",
    });
    await donor.stop();
    await taker.stop();
    const shown = b.run(await task(b, 2, 1), "teardown", "--confirm", "shop");
    expect([await shown.ended, ...shown.lines]).toEqual([0, ...shown.lines]);
    expect(await slots(b)).toEqual([]);
    expect(await published(b)).toEqual([]);
  });

  test("a table renamed to one of another slot does not overtake it", async () => {
    const { b } = await bench();
    const of = (slot: number) =>
      TABLES.filter((table) => wantedSlot(two(), { schema: "public", table }) === slot) as [string, string];
    const [mine, staying] = of(1);
    const [theirs] = of(2);
    const [one, second] = [await task(b, 2, 1), await task(b, 2, 2)];
    const first = b.capture(one);
    const other = kept(b, second);
    cleanups.push(() => other.stop());
    await first.printed("streaming from slot");
    await eventually(() => other.lines.some((line) => line.includes("streaming from slot")), {
      what: "slot 2",
    });
    first.signal("SIGKILL");
    await first.ended;
    // Unread by the first slot; then the other slot's table takes the name.
    await b.client.query(`INSERT INTO ${mine} VALUES (1, 1); INSERT INTO ${staying} VALUES (1, 1)`);
    await b.client.query(`BEGIN; ALTER TABLE ${mine} RENAME TO swapping; ALTER TABLE ${theirs} RENAME TO ${mine};
      ALTER TABLE swapping RENAME TO ${theirs}; INSERT INTO ${mine} VALUES (1, 2); COMMIT`);
    await eventually(() => other.lines.includes("STOPPED FOR GOOD"), { what: "the second slot to stop" });
    expect(other.lines.join()).toMatch(/TABLE_RENAMED.*TOPIC_TAKEN/s);
    const again = b.capture(one);
    expect(await again.ended).toBe(2);
    expect(again.lines.join()).toContain("TOPIC_TAKEN");
    expect([...(await lastWritten(b)).keys()]).toEqual([]);

    // Back: what the first slot had not read comes; the other one goes no further.
    await b.client.query(`BEGIN; ALTER TABLE ${mine} RENAME TO swapping; ALTER TABLE ${theirs} RENAME TO ${mine};
      ALTER TABLE swapping RENAME TO ${theirs}; COMMIT`);
    const back = b.capture(one);
    await eventually(async () => (await lastWritten(b)).size === 2, { what: "both rows of the first slot" });
    expect(await tookEffect(b)).toEqual(new Map([`${mine}/1`, `${staying}/1`].map((key) => [key, 1])));
    const stuck = b.capture(second);
    expect(await stuck.ended).toBe(1);
    expect(stuck.lines.join()).toContain("TABLE_RENAMED");
    back.signal("SIGTERM");
    expect(await back.ended).toBe(0);
  });

  test("a table that is being backfilled moves: the rest comes through the new slot, and no row goes back", async () => {
    const { b, url } = await bench();
    const [table = ""] = TABLES.filter((each) => wantedSlot(two(), { schema: "public", table: each }) === 2);
    const rows = 3000;
    await b.client.query(`INSERT INTO ${table} SELECT id, 0 FROM generate_series(100, ${99 + rows}) id`);
    const slowly = { tables: [`public.${table}`], snapshot: "initial", backfill: { rowsPerSecond: 300 } };
    const one = kept(b, await task(b, 1, 1, slowly));
    cleanups.push(() => one.stop());
    const read = async () => (await b.written()).length;
    await eventually(async () => (await read()) > 0, { what: "rows of the backfill" });
    const stop = new AbortController();
    const writing = (async () => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      for (let i = 0; !stop.signal.aborted; i++) {
        await client.query(`UPDATE ${table} SET n = n + 1 WHERE id = 100 + ($1 * 37) % ${rows}`, [i]);
        await delay(5);
      }
      await client.end();
    })();
    await one.stop();
    expect(one.lines.join()).not.toContain("has read all rows");
    const donor = kept(b, await task(b, 2, 1, slowly));
    cleanups.push(() => donor.stop());
    const taker = kept(b, await task(b, 2, 2, slowly));
    cleanups.push(() => taker.stop());
    const backfill = async () => {
      const status = b.run(await task(b, 2, 1, slowly), "backfill", "status", "--json");
      await status.ended;
      return status.lines.join();
    };
    await eventually(async () => /"status":"done"/.test(await backfill()), { what: "the backfill to end" });
    stop.abort();
    await writing;
    const { rows: held } = await b.client.query<{ id: number; n: number }>(`SELECT id, n FROM ${table}`);
    const wanted = new Map(held.map(({ id, n }) => [id, n]));
    const state = new Map<number, number>();
    const wrong: string[] = [];
    const keep = ({ after }: ChangeEvent) => {
      const { id, n } = after as { id: number; n: number };
      if (n < (state.get(id) ?? 0)) wrong.push(`${id}: ${n} after ${state.get(id)}`);
      state.set(id, n);
    };
    const last = [...wanted].reduce((sum, [, n]) => sum + n, 0);
    await eventually(
      async () => {
        const updates = (await b.records()).flatMap(
          ({ kinesis }) => JSON.parse(Buffer.from(kinesis.data, "base64").toString()).events,
        );
        return (
          new Set(
            updates
              .filter(({ op }) => op === "u")
              .map(({ source }) => JSON.stringify([source.commitLsn, source.ordinal])),
          ).size >= last
        );
      },
      { what: "all updates in the stream" },
    );
    const handler = b.consumer.instance((consumer) =>
      consumer.on("public.*", [Operation.Create, Operation.Update, Operation.Read], keep),
    );
    expect(await invoke(handler, await b.records())).toEqual(DONE);
    expect(wrong).toEqual([]);
    expect(state).toEqual(wanted);
    expect(taker.lines.join()).toMatch(
      new RegExp(`the backfill of public.${table} begins.*"rowsBefore":[1-9]`),
    );
  });

  async function slots(b: CaptureBench): Promise<readonly string[]> {
    const { rows } = await b.client.query<{ name: string }>(
      "SELECT slot_name AS name FROM pg_replication_slots WHERE database = current_database()",
    );
    return rows.map(({ name }) => name);
  }

  /** Tables that are in a publication. */
  async function published(b: CaptureBench): Promise<readonly string[]> {
    const { rows } = await b.client.query<{ name: string }>(
      "SELECT tablename AS name FROM pg_publication_tables ORDER BY tablename",
    );
    return rows.map(({ name }) => name);
  }

  /** The highest count of each key that stands in the stream. */
  async function lastWritten(b: CaptureBench): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>();
    for (const { kinesis } of await b.records()) {
      const { events } = JSON.parse(Buffer.from(kinesis.data, "base64").toString());
      for (const { after, source } of events) {
        const key = `${source.table}/${after?.id}`;
        if (after && after.n > (found.get(key) ?? 0)) found.set(key, after.n);
      }
    }
    return found;
  }
});
