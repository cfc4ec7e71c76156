import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import type { postgres } from "../../lib/definition/pipeline.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { MemoryHolds } from "./hold-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-names-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

type Source = Partial<Parameters<typeof postgres>[0]>;

/** A captured table `live` with three rows, beside a table `stage` with six that is not captured, and a captured one `other`. */
async function scene(server: Parameters<typeof freshDatabase>[0], source: Source = {}) {
  const url = await freshDatabase(server);
  const client = await superuser(url);
  for (const table of ["live", "stage", "other"])
    await client.query(`CREATE TABLE public.${table} (id int PRIMARY KEY, v text)`);
  await client.query("INSERT INTO live SELECT i, 'old' FROM generate_series(1, 3) i");
  await client.query("INSERT INTO stage SELECT i, 'new' FROM generate_series(1, 6) i");
  const [record, holds, backfills] = [new MemoryRecord(), new MemoryHolds(), new MemoryBackfills()];
  const open = (more: Source = {}) =>
    OpenSource.open(url, {
      pipeline: definition(url, { tables: ["public.live", "public.other"], ...source, ...more }),
      record,
      holds: { record: holds, store: new DirectoryClaimStore(directory), generation: 1 },
      backfill: { record: backfills, pollMs: 50 },
      walSenderTimeoutMs: 2_000,
    });
  return { url, client, record, holds, backfills, open };
}

const SWAP = "BEGIN; ALTER TABLE live RENAME TO live_old; ALTER TABLE stage RENAME TO live; COMMIT";
const LIVE = "shop.public.live";

/** `c 7 new` for a change of the topic of `live`. */
const changesOf = (changes: readonly SourceChange[], topic = LIVE) =>
  changes
    .filter((change) => change.topic.name === topic)
    .map((change) => JSON.parse(`${change.json}}}`))
    .filter(({ op }) => op !== "m")
    .map(({ op, before, after }) => `${op} ${(after ?? before).id} ${after?.v ?? ""}`);

/** Ends of backfills that ask for a sweep. */
const sweeps = (changes: readonly SourceChange[]) =>
  changes
    .map((change) => JSON.parse(`${change.json}}}`).message)
    .filter((message) => message?.prefix === "tributary.backfill-end")
    .map(({ content }) => JSON.parse(Buffer.from(content, "base64").toString()))
    .filter(({ sweep }) => sweep)
    .map(({ table }) => table);

const held = (holds: MemoryHolds, topic = LIVE) =>
  eventually(() => holds.holds.get(topic), { what: `a hold of ${topic}` });

/** Waits for what a source gives; an error that ends its stream says more than a time-out. */
const given = (source: OpenSource, condition: () => boolean, what: string) =>
  eventually(
    () => {
      if (source.error) throw source.error;
      return condition();
    },
    { what },
  );

eachPostgres("a captured name", (server) => {
  test("that a partitioned table takes over, with the one before as its partition, goes under no other name", async () => {
    const { client, holds, open } = await scene(server());
    const first = await open();
    await first.until(3);
    await client.query(`BEGIN; ALTER TABLE live RENAME TO live_1;
      CREATE TABLE live (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      ALTER TABLE live ATTACH PARTITION live_1 FOR VALUES FROM (0) TO (100); COMMIT`);
    await client.query("INSERT INTO live VALUES (7, 'between')");
    await held(holds);
    await client.query("INSERT INTO live VALUES (8, 'held')");
    holds.wanted.add(LIVE);
    expect(await first.failure()).toMatchObject({ code: "TABLE_ACCEPTED" });
    await first.close();
    const second = await open();
    await given(second, () => sweeps(second.changes).length === 1, "the sweep");
    await client.query("UPDATE live SET v = 'later'");
    await given(second, () => changesOf(second.changes).includes("u 8 later"), "the last change");
    const topics = [...first.changes, ...second.changes].map(({ topic }) => topic.name);
    expect(new Set(topics)).toEqual(new Set([LIVE, "shop.public.other"]));
    expect(changesOf(second.changes)).toEqual(expect.arrayContaining(["r 7 between", "r 8 held"]));
    await second.close();
    await client.end();
  });

  test("that another table takes is told with both names and held, and reads that one anew when it is released", async () => {
    const { client, holds, backfills, open } = await scene(server());
    const first = await open();
    await first.until(3);
    await client.query(SWAP);
    await client.query("INSERT INTO live VALUES (7, 'after the swap'); INSERT INTO other VALUES (1, 'x')");
    const hold = await held(holds);
    expect(hold.reason).toMatchObject({ code: "TABLE_REPLACED", table: "public.live" });
    expect(hold.reason.message).toMatch(/public\.live is another table now .* public\.live_old/);
    await given(
      first,
      () => changesOf(first.changes, "shop.public.other").includes("c 1 x"),
      "the other topic",
    );
    expect(changesOf(first.changes)).toEqual(["r 1 old", "r 2 old", "r 3 old"]);
    expect(first.error).toBeUndefined();
    holds.wanted.add(LIVE);
    // Its publication is brought up to date by a new start alone.
    expect(await first.failure()).toMatchObject({ code: "TABLE_ACCEPTED", retry: "restart" });
    await first.close();
    const second = await open();
    await given(second, () => sweeps(second.changes).length === 1, "the sweep");
    expect(changesOf(second.changes).toSorted()).toEqual([
      ...[1, 2, 3, 4, 5, 6].map((id) => `r ${id} new`),
      "r 7 after the swap",
    ]);
    await client.query("UPDATE live SET v = 'later' WHERE id = 7");
    await given(second, () => changesOf(second.changes).includes("u 7 later"), "a change of the new table");
    expect(holds.holds.size).toBe(0);
    expect(backfills.of("public.live").request.sweep).toBe(true);
    inOrder(second.changes.filter(({ partition }) => partition >= 0));
    await second.close();
    await client.end();
  });

  test("whose table goes by another name for a time loses none of its changes", async () => {
    const { client, holds, open } = await scene(server(), { snapshot: "never" });
    const source = await open();
    await client.query("INSERT INTO live VALUES (4, 'before')");
    await source.until(1);
    await client.query("CREATE SCHEMA elsewhere; ALTER TABLE live SET SCHEMA elsewhere");
    await client.query("INSERT INTO elsewhere.live VALUES (5, 'away')");
    const { reason } = await held(holds);
    expect(reason.message).toMatch(/public\.live .* is called elsewhere\.live now/);
    await client.query("ALTER TABLE elsewhere.live SET SCHEMA public");
    await client.query("INSERT INTO live VALUES (6, 'back')");
    holds.wanted.add(LIVE);
    await eventually(() => holds.holds.size === 0, { what: "the release" });
    await client.query("INSERT INTO live VALUES (7, 'later')");
    await source.until(5);
    expect(changesOf(source.changes)).toEqual(["c 4 before", "c 5 away", "c 6 back", "c 7 later"]);
    expect(source.changes.every(({ table }) => table === "public.live" || table === "$control-events")).toBe(
      true,
    );
    await source.close();
    await client.end();
  });

  test("that is taken while the task is down has its table read anew at the next start", async () => {
    const { client, record, holds, open } = await scene(server());
    const first = await open();
    await first.until(3);
    await first.close();
    await client.query("DROP TABLE live; CREATE TABLE live (id int PRIMARY KEY, v text)");
    await client.query("INSERT INTO live VALUES (2, 'anew')");
    const second = await open();
    await given(second, () => sweeps(second.changes).length === 1, "the sweep");
    expect(changesOf(second.changes)).toEqual(["r 2 anew"]);
    expect(
      second.log.lines.some((line) => /public\.live is another table now .* was dropped/.test(line)),
    ).toBe(true);
    await client.query("INSERT INTO live VALUES (3, 'later')");
    await given(second, () => changesOf(second.changes).includes("c 3 later"), "its changes");
    expect(holds.holds.size).toBe(0);
    await second.close();
    const { rows } = await client.query("SELECT 'live'::regclass::oid::int AS oid");
    expect(record.state?.tables?.["public.live"]?.at(-1)?.oid).toBe(rows[0].oid);
    await client.end();
  });

  test("is held at the next start where existing rows are not read by themselves", async () => {
    const { client, holds, open } = await scene(server(), { snapshot: "never" });
    const first = await open();
    await client.query("INSERT INTO live VALUES (4, 'old')");
    await first.until(1);
    await first.close();
    await client.query(SWAP);
    const second = await open();
    await held(holds);
    await client.query("INSERT INTO live VALUES (7, 'held')");
    await eventually(() => (holds.holds.get(LIVE)?.changes ?? 0) === 1, { what: "the held change" });
    expect(changesOf(second.changes)).toEqual([]);
    holds.wanted.add(LIVE);
    await given(second, () => sweeps(second.changes).length === 1, "the sweep");
    expect(changesOf(second.changes).filter((change) => change === "c 7 held")).toHaveLength(1);
    expect(changesOf(second.changes).filter((change) => change.endsWith("new"))).toHaveLength(6);
    await second.close();
    await client.end();
  });

  test("never brings another table's rows, truncates included, where the publication holds them all", async () => {
    const { url, client, holds, open } = await scene(server(), { snapshot: "never" });
    const { publication } = definition(url).source;
    await client.query(
      `CREATE PUBLICATION "${publication}" FOR ALL TABLES WITH (publish_via_partition_root = true)`,
    );
    const source = await open();
    await client.query("INSERT INTO live VALUES (4, 'old')");
    await source.until(1);
    await client.query(SWAP);
    await client.query(
      "TRUNCATE live; INSERT INTO live VALUES (1, 'new'); INSERT INTO other VALUES (1, 'x')",
    );
    await given(
      source,
      () => changesOf(source.changes, "shop.public.other").includes("c 1 x"),
      "the other topic",
    );
    expect(changesOf(source.changes)).toEqual(["c 4 old"]);
    expect((await held(holds)).reason.code).toBe("TABLE_REPLACED");
    await source.close();
    await client.end();
  });

  test("with nothing known of it, as in a record of before, is taken for the table that has it", async () => {
    const { client, record, holds, open } = await scene(server());
    const first = await open();
    await first.until(3);
    await first.close();
    const { tables: _tables, ...before } = record.state as NonNullable<typeof record.state>;
    record.state = before;
    const second = await open();
    await client.query("INSERT INTO live VALUES (4, 'on')");
    await second.until(1);
    expect(changesOf(second.changes)).toEqual(["c 4 on"]);
    expect(holds.holds.size).toBe(0);
    expect(Object.keys(record.state?.tables ?? {})).toEqual(["public.live", "public.other"]);
    await second.close();
    await client.end();
  });
});
