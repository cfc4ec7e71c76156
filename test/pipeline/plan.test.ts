import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { GetItemCommand } from "@aws-sdk/client-dynamodb";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { beginEpoch } from "../../lib/admin/begin-epoch.ts";
import type { PipelinePlan, PlannedChange } from "../../lib/admin/plan/pipeline-plan.ts";
import { planPipeline } from "../../lib/admin/plan/plan.ts";
import { kinesisClient } from "../../lib/aws/clients.ts";
import { runCapture } from "../../lib/capture/capture.ts";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import type { TributaryError } from "../../lib/change/tributary-error.ts";
import {
  definePipeline,
  type LogPipeline,
  type Pipeline,
  type PipelineInput,
} from "../../lib/definition/pipeline.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { slotNames, wantedSlot } from "../../lib/source/postgres/slots/assignment.ts";
import { readBackfills } from "../../lib/state/backfills.ts";
import { readCaptureRecord } from "../../lib/state/capture-record.ts";
import { setPause } from "../../lib/state/pauses.ts";
import { startPositionKey } from "../../lib/state/state-key.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { KeptLog } from "../postgres/source.ts";
import { Program } from "./capture-bench.ts";

/*
 * The plan is held against what a start really does: all that a start can change is looked at before and after it, and the plan, applied to
 * what was before, must give what is after.
 */

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
const signal = new AbortController().signal;
const LEASE_MS = 1_500;
const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));
/** Consumers that a test may have. */
const CONSUMERS = ["orders", "search"];

/** All that a start can change. */
interface Standing {
  publications: Record<string, string[]>;
  slots: string[];
  /** Tables with stored settings, and their topics. */
  tables: Record<string, string>;
  /** Number of the latest run of each table. */
  backfills: Record<string, number>;
  /** Topic patterns that each consumer has now, and the first start position of each. */
  consumers: Record<string, Record<string, string>>;
  reading: string | undefined;
  epoch: number | undefined;
}

withPostgres((server) => {
  async function scene(kind: string, options: object = {}, tables = ["orders", "items"]) {
    const url = await freshDatabase(server());
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    cleanups.push(() => client.end());
    for (const table of tables)
      await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, note text); ANALYZE ${table}`);
    const stateTable = await aws().freshTable();
    const stream = await aws().freshStream();
    const { dynamodb } = aws();
    const connection = connectionFromUrl(url);
    const slot = new URL(url).pathname.slice(1).replace(/\W/g, "_");
    const log = kind === "postgres" ? { slot, publication: slot, acceptUnboundedWal: true } : {};
    const define = (source: object = {}, more: object = {}): Pipeline =>
      definePipeline({
        name: "shop",
        source: { kind, ...log, ...options, ...source },
        consumers: [{ name: "orders", entry: "x", topics: ["*.public.orders"] }],
        ...more,
      } as PipelineInput);

    const plan = (pipeline: Pipeline) =>
      planPipeline({ pipeline, connection, state: { dynamodb, stateTable }, signal });

    /** Starts the tasks of a pipeline, and ends them when all of them stream. Gives the code of the error that ended them. */
    async function start(pipeline: Pipeline, meanwhile = async () => {}): Promise<string | undefined> {
      const ending = new AbortController();
      const numbers = sourceKind(pipeline.source).tasks(pipeline.source);
      const streaming = new Set<number>();
      const run = async (number: number): Promise<void> => {
        const options = {
          ...{ pipeline, connection, dynamodb, stateTable, leaseMs: LEASE_MS, log: new KeptLog() },
          slot: number,
          stream: kinesisStream(kinesisClient(aws().environment), stream),
          onMetrics: () => streaming.add(number),
        };
        // A host starts a task again that says so, as one does whose tables have moved.
        await runCapture(options, ending.signal).catch(async (error: TributaryError) => {
          if (error.retry !== "restart" || ending.signal.aborted) throw error;
          streaming.delete(number);
          await run(number);
        });
      };
      const runs = numbers.map(run);
      const failure = Promise.all(runs).then(
        () => undefined,
        (error: TributaryError) => error.code,
      );
      const ended = await Promise.race([
        failure,
        eventually(() => streaming.size === numbers.length, { what: "streaming", deadlineMs: 60_000 }),
      ]);
      if (ended !== undefined && typeof ended !== "string") await meanwhile();
      ending.abort();
      await Promise.allSettled(runs);
      return typeof ended === "string" ? ended : undefined;
    }

    async function standing(): Promise<Standing> {
      const { rows: publications } = await client.query<{ name: string; tables: string[] }>(
        `SELECT pubname::text AS name, ARRAY(SELECT format('%I.%I', schemaname, tablename) FROM pg_publication_tables t
                  WHERE t.pubname = p.pubname ORDER BY 1) AS tables FROM pg_publication p`,
      );
      const { rows: slots } = await client.query<{ name: string }>(
        "SELECT slot_name::text AS name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1",
      );
      const place = { dynamodb, table: stateTable, pipeline: "shop", signal };
      const records = await Promise.all(
        [1, 2].map((number) => readCaptureRecord({ ...place, slot: number })),
      );
      const settings = records.flatMap((record) => Object.entries(record.settings?.tables ?? {}));
      const backfills = await readBackfills(place);
      const consumers: Standing["consumers"] = {};
      for (const name of CONSUMERS) {
        const { pk, sk } = startPositionKey({ pipeline: "shop", consumer: name });
        const { Item: item } = await dynamodb.send(
          new GetItemCommand({ TableName: stateTable, Key: { pk: { S: pk }, sk: { S: sk } } }),
        );
        if (!item) continue;
        const spans = JSON.parse(item.spans?.S ?? "{}") as Record<
          string,
          { position: string; until?: number }[]
        >;
        consumers[name] = Object.fromEntries(
          Object.entries(spans).flatMap(([pattern, all]) => {
            const open = all.find(({ until }) => until === undefined);
            return open ? [[pattern, open.position]] : [];
          }),
        );
      }
      const [first] = records;
      return {
        publications: Object.fromEntries(publications.map(({ name, tables }) => [name, tables])),
        slots: slots.map(({ name }) => name),
        tables: Object.fromEntries(settings.map(([name, { topic }]) => [name, topic])),
        backfills: Object.fromEntries(backfills.map(({ table, run }) => [table, run])),
        consumers,
        reading: first?.reading?.kind,
        epoch: first?.slot?.epoch ?? first?.reading?.epoch,
      };
    }

    /** Plans, starts, and holds one against the other. Gives the plan's lines in short. */
    async function planned(pipeline: Pipeline): Promise<string[]> {
      const before = await standing();
      const said = await plan(pipeline);
      expect(await standing(), "planning has changed something").toEqual(before);
      expect(said.refusals).toEqual([]);
      expect(await start(pipeline)).toBeUndefined();
      const after = await standing();
      expect(after).toEqual(applied(before, said, pipeline));
      return said.changes.map(inShort);
    }

    /** What a plan refuses, a start refuses by the same code, and changes nothing at the server. */
    async function refused(pipeline: Pipeline): Promise<PipelinePlan["refusals"]> {
      const before = await standing();
      const { refusals } = await plan(pipeline);
      // Problems of the database come in one error.
      expect(["PREFLIGHT", ...refusals.map(({ code }) => code)]).toContain(await start(pipeline));
      const { publications, slots, reading, epoch } = before;
      expect(await standing()).toMatchObject({ publications, slots, reading, epoch });
      return refusals;
    }
    return { client, url, slot, define, plan, planned, refused, start, connection, stateTable };
  }

  test("the log, from its first start over tables and consumers that come and go", async () => {
    const { client, slot, define, planned, plan } = await scene("postgres", { tables: ["public.*"] });
    const first = define();
    expect(await planned(first)).toEqual([
      `+ publication ${slot}`,
      `+ slot ${slot}`,
      "+ table public.items",
      "+ table public.orders",
      "+ backfill public.items",
      "+ backfill public.orders",
      "+ consumer orders",
      "+ topic *.public.orders",
    ]);
    expect(await planned(first), "nothing has changed").toEqual([]);

    await client.query(
      "CREATE TABLE parts (id int PRIMARY KEY); INSERT INTO parts SELECT generate_series(1, 100)",
    );
    await client.query("ANALYZE parts");
    const { changes } = await plan(first);
    expect(changes.find(({ what }) => what === "backfill")).toMatchObject({
      ...{ name: "public.parts", rows: 100, bytes: expect.any(Number), sweep: false },
    });
    expect(await planned(first), "a table is added").toEqual([
      `~ publication ${slot}`,
      "+ table public.parts",
      "+ backfill public.parts",
    ]);

    const topics = ["*.public.orders", "*.public.items"];
    const wider = { consumers: [{ name: "orders", entry: "x", topics }] };
    expect(await planned(define({}, wider)), "a topic is added").toEqual(["+ topic *.public.items"]);
    const search = { name: "search", entry: "y", topics: ["*.public.items"] };
    const both = { consumers: [{ name: "orders", entry: "x", topics: ["*.public.items"] }, search] };
    expect(await planned(define({}, both)), "a consumer is added, a topic is taken").toEqual(
      ["- topic *.public.orders", "+ consumer search", "+ topic *.public.items"].sort(
        (a, b) => Number(b.includes("consumer")) - Number(a.includes("consumer")),
      ),
    );

    const without = define({ exclude: ["public.parts"] }, both);
    expect(await planned(without), "a table is removed").toEqual(["- table public.parts"]);
    expect(await planned(without), "and stays away").toEqual([]);
    // It was not captured for a while: what consumers hold of it may be gone.
    expect(await planned(define({}, both)), "it comes back").toEqual(["+ backfill public.parts"]);
  });

  test("settings that a start refuses, by the same code", async () => {
    const { define, planned, refused, slot } = await scene("postgres", { tables: ["public.*"] });
    await planned(define());
    expect(await refused(define({}, { topics: { partitions: 8 } }))).toEqual([
      {
        code: "STORED_SETTING_CHANGED",
        message: expect.stringMatching(/partitions of public.items: was 64, is now 8/),
        remedy: expect.stringContaining("Put the settings back"),
      },
    ]);
    expect(await refused(define({}, { topics: { keys: { "public.orders": ["id"] } } }))).toMatchObject([
      { code: "STORED_SETTING_CHANGED" },
    ]);
    const codes = (await refused(define({ slot: `${slot}_2` }))).map(({ code }) => code);
    expect(codes).toContain("SLOT_SETTINGS_CHANGED");
    expect(codes).toContain("STORED_SETTING_CHANGED");
    expect((await refused(define({ tables: ["public.nothing"] }))).map(({ code }) => code)).toEqual([
      "TABLE_PATTERN",
    ]);
  });

  test("a slot of somebody else's, and a slot that was dropped", async () => {
    const { client, define, planned, refused, slot } = await scene("postgres", { tables: ["public.*"] });
    await client.query("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", [slot]);
    expect((await refused(define())).map(({ code }) => code)).toEqual(["SLOT_FOREIGN"]);
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    await planned(define());
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    expect((await refused(define())).map(({ code }) => code)).toEqual(["SLOT_MISSING"]);
  });

  test("a publication that was made by hand is used as it is", async () => {
    const { client, define, planned, refused, slot } = await scene("postgres", { tables: ["public.*"] });
    await client.query(
      `CREATE PUBLICATION ${slot} FOR TABLE orders WITH (publish_via_partition_root = true)`,
    );
    expect((await refused(define())).map(({ code }) => code)).toEqual(["PUBLICATION"]);
    expect(await planned(define({ tables: ["public.orders"], snapshot: "never" }))).toEqual([
      `+ slot ${slot}`,
      "+ table public.orders",
      "+ consumer orders",
      "+ topic *.public.orders",
    ]);
  });

  test("a further slot takes its share of the tables", async () => {
    const tables = ["t1", "t2", "t3", "t4"];
    const options = { tables: ["public.*"], snapshot: "never" };
    const { define, planned, refused, slot } = await scene("postgres", options, tables);
    const none = { consumers: [] };
    await planned(define({}, none));
    const two = define({ slots: 2 }, none);
    const moving = tables.filter(
      (table) => wantedSlot(two as LogPipeline, { schema: "public", table }) === 2,
    );
    expect(moving.length).toBeGreaterThan(0);
    const { publication, slot: further } = slotNames({ slot, publication: slot }, 2);
    expect(await planned(two)).toEqual([
      `+ publication ${publication}`,
      `+ slot ${further}`,
      ...moving.map((table) => `~ table public.${table}`),
    ]);
    expect(await planned(two)).toEqual([]);
    expect(await refused(define({}, none))).toMatchObject([{ code: "SLOTS_REDUCED" }]);
  });

  test("polling, triggers and the outbox, whose objects must be there first", async () => {
    const polled = await scene("polling", { tables: ["public.orders"], column: "updated_at" }, ["orders"]);
    expect((await polled.refused(polled.define())).length).toBeGreaterThan(0);
    for (const sql of await sourceKind({ kind: "polling" }).prepare(polled.define()))
      await polled.client.query(sql);
    const begun = ["+ table public.orders", "+ consumer orders", "+ topic *.public.orders"];
    expect(await polled.planned(polled.define())).toEqual(["+ reading polling", ...begun]);
    expect(await polled.planned(polled.define())).toEqual([]);

    const triggered = await scene("triggers", { tables: ["public.orders"] }, ["orders"]);
    expect((await triggered.refused(triggered.define())).map(({ code }) => code)).toEqual(["AUDIT_TABLE"]);
    for (const sql of await sourceKind({ kind: "triggers" }).prepare(triggered.define()))
      await triggered.client.query(sql);
    expect(await triggered.planned(triggered.define())).toEqual(["+ reading triggers", ...begun]);
    expect(await triggered.planned(triggered.define())).toEqual([]);

    const outbox = await scene("outbox", { table: "public.outbox" }, []);
    expect((await outbox.refused(outbox.define())).map(({ code }) => code)).toEqual(["OUTBOX_TABLE"]);
    for (const sql of await sourceKind({ kind: "outbox" }).prepare(outbox.define()))
      await outbox.client.query(sql);
    expect(await outbox.planned(outbox.define())).toEqual([
      "+ reading outbox",
      "+ consumer orders",
      "+ topic *.public.orders",
    ]);
    expect(await outbox.planned(outbox.define())).toEqual([]);
  });

  test("a database that cannot be reached is not seen, and what is stored is judged all the same", async () => {
    const { define, planned, stateTable } = await scene("postgres", { tables: ["public.*"] });
    await planned(define());
    const state = { dynamodb: aws().dynamodb, stateTable };
    for (const connection of [connectionFromUrl("postgres://me@127.0.0.1:1/none"), "nothing names it"]) {
      const other = define({}, { topics: { partitions: 8 }, consumers: [] });
      const { changes, refusals, unseen } = await planPipeline({
        ...{ pipeline: other, connection, state, signal },
        deployedConsumers: ["orders"],
      });
      expect(unseen).toEqual([{ what: "database", why: expect.stringMatching(/127.0.0.1:1|nothing/) }]);
      expect(refusals.map(({ code }) => code)).toEqual(["STORED_SETTING_CHANGED"]);
      expect(changes.map(inShort)).toEqual(["- consumer orders"]);
    }
  });

  test("tributary plan exits 0 for nothing, 2 for changes and 1 for what would be refused", async () => {
    const { define, start, stateTable, url } = await scene("postgres", { tables: ["public.*"] });
    const pipeline = define();
    const folder = await mkdtemp(join(tmpdir(), "tributary-plan-"));
    cleanups.push(() => rm(folder, { recursive: true }));
    const run = async (definition: object, ...args: string[]) => {
      const file = join(folder, `${randomUUID()}.mjs`);
      await writeFile(file, `export default ${JSON.stringify(definition)};`);
      const environment = { ...aws().environment, DATABASE_URL: url, TRIBUTARY_STATE_TABLE: stateTable };
      const program = new Program(CLI, ["plan", "--pipeline", file, ...args], {
        ...{ PATH: process.env.PATH ?? "", NODE_NO_WARNINGS: "1" },
        ...(environment as Record<string, string>),
      });
      return { code: await program.ended, text: program.lines.join("\n") };
    };
    expect(await run(pipeline)).toMatchObject({ code: 2, text: expect.stringMatching(/^\+ slot /m) });
    expect(await start(pipeline)).toBeUndefined();
    expect(await run(pipeline)).toMatchObject({ code: 0, text: expect.stringContaining("change nothing") });
    const { code, text } = await run(
      { ...pipeline, topics: { ...pipeline.topics, partitions: 8 } },
      "--json",
    );
    expect(code).toBe(1);
    expect(JSON.parse(text)).toMatchObject({ refusals: [{ code: "STORED_SETTING_CHANGED" }] });
    // Not the code of changes.
    expect(await run({ ...pipeline, name: "No Name" })).toMatchObject({ code: 1 });
    expect(await run(pipeline, "--database-url", "postgres://me@127.0.0.1:1/none")).toMatchObject({
      code: 1,
      text: expect.stringContaining("Not seen: database"),
    });
  });

  test("a plan made while a task runs says that its slot is read, and refuses nothing", async () => {
    const { define, plan, start, slot } = await scene("postgres", { tables: ["public.*"] });
    let during: PipelinePlan | undefined;
    await start(define(), async () => {
      during = await plan(define());
    });
    expect(during).toMatchObject({ changes: [], refusals: [] });
    expect(during?.notes).toEqual([
      expect.stringMatching(new RegExp(`^The slot "${slot}" is read by process`)),
    ]);
  });

  test("a slot that is there and unread is taken", async () => {
    const options = { tables: ["public.*"], snapshot: "never" };
    const { client, define, planned, slot } = await scene("postgres", options, ["t1", "t2", "t3"]);
    await client.query(`CREATE PUBLICATION ${slot} FOR TABLE t1, t2, t3`);
    await client.query(`ALTER PUBLICATION ${slot} SET (publish_via_partition_root = true)`);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    const none = { consumers: [] };
    const tables = ["t1", "t2", "t3"].map((table) => `+ table public.${table}`);
    expect(await planned(define({}, none))).toEqual([`~ slot ${slot}`, ...tables]);
  });

  test("a publication that said less meanwhile, and a new epoch that is pending", async () => {
    const { client, define, planned, plan, slot, connection, stateTable } = await scene("postgres", {
      tables: ["public.*"],
    });
    await planned(define());
    const place = { dynamodb: aws().dynamodb, table: stateTable, pipeline: "shop", signal };
    await setPause(place, { consumer: "orders" }, { by: "ada", since: 0, reason: undefined });
    expect((await plan(define())).notes).toEqual([
      expect.stringMatching(/^consumer "orders" is paused by ada .*consumer resume --consumer orders$/),
    ]);
    await client.query(`ALTER PUBLICATION ${slot} SET (publish = 'insert')`);
    await client.query(`ALTER PUBLICATION ${slot} SET (publish = 'insert, update, delete, truncate')`);
    expect((await plan(define())).changes).toEqual(
      ["public.items", "public.orders"].map((name) => ({
        ...{ what: "missing changes", action: "add", name },
        reason: expect.stringContaining("was changed and put back"),
      })),
    );
    await beginEpoch({
      ...{ pipeline: define(), connection, dynamodb: aws().dynamodb, stateTable, dropSlot: true },
      ...{ leaseMs: LEASE_MS, signal, log: () => {} },
    });
    expect(await planned(define())).toEqual([
      "~ epoch 2",
      `+ slot ${slot}`,
      "+ backfill public.items",
      "+ backfill public.orders",
    ]);
  });
});

function inShort({ action, what, name }: PlannedChange): string {
  return `${{ add: "+", remove: "-", change: "~" }[action]} ${what} ${name}`;
}

/** What stands after the changes of a plan. */
function applied(before: Standing, { changes }: PipelinePlan, { source, topics }: Pipeline): Standing {
  const after = structuredClone(before);
  const publicationOf = (slot: string) =>
    Object.keys(after.publications).find((name) => name === slot) as string;
  for (const change of changes) {
    switch (change.what) {
      case "publication":
        if (change.action === "remove") delete after.publications[change.name];
        else
          after.publications[change.name] = [
            ...(after.publications[change.name] ?? []).filter((table) => !change.removed.includes(table)),
            ...change.added,
          ].sort();
        break;
      case "slot":
        if (change.action === "add") after.slots = [...after.slots, change.name].sort();
        break;
      case "reading":
        after.reading = change.name;
        after.epoch ??= 1;
        break;
      case "table":
        if (change.action === "add") after.tables[change.name] = change.topic;
        else if (change.action === "change") {
          const [from, to] = [publicationOf(change.from as string), publicationOf(change.to as string)];
          after.publications[from] = (after.publications[from] ?? []).filter(
            (table) => table !== change.name,
          );
          after.publications[to] = [...(after.publications[to] ?? []), change.name].sort();
        }
        break;
      case "backfill":
        if (change.action !== "remove")
          after.backfills[change.name] = (after.backfills[change.name] ?? 0) + 1;
        break;
      case "consumer":
        if (change.action === "add") after.consumers[change.name] = {};
        break;
      case "topic": {
        const patterns = { ...after.consumers[change.consumer] };
        if (change.action === "remove") delete patterns[change.name];
        else
          patterns[change.name] =
            change.start?.from === "position" ? change.start.position : START_OF_HISTORY;
        after.consumers[change.consumer] = patterns;
        break;
      }
    }
  }
  if (changes.some(({ what }) => what === "slot")) after.epoch ??= 1;
  for (const change of changes) if (change.what === "epoch") after.epoch = change.epoch;
  // What stands for the tables that an outbox's topics are not named after is no table.
  if (source.kind === "outbox") after.tables['outbox."*"'] ??= `${topics.prefix}.outbox.%2A`;
  return after;
}
