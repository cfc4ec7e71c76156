import type pg from "pg";
import { expect, test } from "vitest";
import type { SlotState } from "../../lib/source/postgres/slot/slot-record.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";
import { MemoryUnhealed } from "./unhealed-record.ts";

/** A record that remembers all that was written. */
class FullRecord extends MemoryRecord {
  readonly states: SlotState[] = [];

  override async write(state: SlotState): Promise<void> {
    this.states.push(state);
    await super.write(state);
  }
}

interface Shop {
  readonly url: string;
  readonly client: pg.Client;
  readonly record: FullRecord;
  readonly unhealed: MemoryUnhealed;
  /** Opens the source, which looks at the publication every second. */
  readonly open: (options?: Parameters<typeof OpenSource.open>[1]) => Promise<OpenSource>;
}

const P = '"tributary_shop"';

/** A pipeline of two tables that ran for a while. */
async function shop(server: Parameters<typeof freshDatabase>[0]): Promise<Shop> {
  const url = await freshDatabase(server);
  const client = await superuser(url);
  await client.query("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)");
  const [record, unhealed] = [new FullRecord(), new MemoryUnhealed()];
  const open: Shop["open"] = (options) =>
    OpenSource.open(url, { record, unhealed, walSenderTimeoutMs: 2000, ...options });
  return { url, client, record, unhealed, open };
}

async function ranBefore(server: Parameters<typeof freshDatabase>[0]): Promise<Shop> {
  const found = await shop(server);
  const first = await found.open();
  await found.client.query("INSERT INTO t VALUES (1, 'a')");
  await first.until(1);
  await first.close();
  return found;
}

const told = ({ log }: OpenSource) => log.lines.filter((line) => /may be missing/.test(line));

/** Waits for two looks: what had ended before the first one counts in the second. */
async function looked(record: MemoryRecord, client: pg.Client): Promise<void> {
  for (let look = 0; look < 2; look++) {
    const { rows } = await client.query(
      // A captured change: for idle positions alone the record is written every 10 s.
      "INSERT INTO u SELECT coalesce(max(id), 0) + 1 FROM u RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now",
    );
    const now = rows[0].now as number;
    await eventually(() => (record.state?.termsSeen?.atMs ?? 0) > now, { what: "a look" });
  }
}

eachPostgres("what the publication says is part of the contract", (server) => {
  test("one that stops publishing updates ends the stream, and stays noted until a backfill has swept", async () => {
    const { client, record, unhealed, open } = await shop(server());
    const backfills = new MemoryBackfills();
    const backfill = { record: backfills, pollMs: 50 };
    const first = await open({ backfill });
    await eventually(() => backfills.items.get("public.t")?.status === "done", {
      what: "the first backfill",
    });
    // A sweep of before heals nothing.
    await backfills.request("public.t", { sweep: true, requestedAt: 0 });
    await eventually(() => backfills.of("public.t").status === "done", { what: "a sweep of before" });
    await client.query(`ALTER PUBLICATION ${P} SET (publish = 'insert, truncate')`);
    expect(await first.failure()).toMatchObject({
      code: "PUBLICATION_NARROWED",
      retry: "restart",
      message: expect.stringMatching(/public\.t \(update, delete\), public\.u \(update, delete\)/),
      remedy: expect.stringContaining(
        `ALTER PUBLICATION ${P} SET (publish = 'insert, update, delete, truncate');`,
      ),
    });
    await first.close();
    await client.query("UPDATE t SET v = 'lost'");
    await expect(open({ backfill })).rejects.toMatchObject({ code: "PREFLIGHT" });
    await client.query(`ALTER PUBLICATION ${P} SET (publish = 'insert, update, delete, truncate')`);

    const second = await open({ backfill });
    try {
      const entry = unhealed.tables.get("public.t");
      expect(entry).toMatchObject({
        asks: false,
        reasons: expect.arrayContaining([expect.stringMatching(/update, delete/)]),
      });
      const unhealedNow = () => second.status?.unhealed?.map(({ table }) => table);
      await eventually(() => unhealedNow()?.join() === "public.t,public.u", {
        what: "both tables in the metrics",
      });
      await looked(record, client);
      expect(unhealed.tables.has("public.t")).toBe(true);
      // Without a sweep deleted rows would stay; with it the table is whole again.
      await backfills.request("public.t", { sweep: false, requestedAt: 0 });
      await eventually(() => backfills.of("public.t").status === "done", {
        what: "a backfill without a sweep",
      });
      await looked(record, client);
      expect(unhealed.tables.has("public.t")).toBe(true);
      await backfills.request("public.t", { sweep: true, requestedAt: 0 });
      await eventually(() => !unhealed.tables.has("public.t"), { what: "the end of what was missing" });
      expect(backfills.of("public.t")).toMatchObject({ run: 4, status: "done", request: { sweep: true } });
      expect(unhealed.tables.has("public.u")).toBe(true);
      // An operator accepts it.
      unhealed.tables.delete("public.u");
      await eventually(() => second.status?.unhealed?.length === 0, { what: "nothing more missing" });
    } finally {
      await second.close();
      await client.end();
    }
    expect(record.state?.terms?.own).toBeUndefined();
  });

  test("narrowed and put back between two looks: the text is equal, and it is told all the same, once", async () => {
    const { client, unhealed, open } = await ranBefore(server());
    await client.query(`ALTER PUBLICATION ${P} SET (publish = 'insert')`);
    await client.query("UPDATE t SET v = 'lost'");
    await client.query(`ALTER PUBLICATION ${P} SET (publish = 'insert, update, delete, truncate')`);
    const second = await open();
    expect(told(second)).toEqual([
      expect.stringMatching(/^public\.t: .* was changed and put back/),
      expect.stringMatching(/^public\.u: .* was changed and put back/),
    ]);
    await second.close();
    unhealed.tables.clear();
    const third = await open();
    expect(told(third)).toEqual([]);
    // While it streams, the same.
    await client.query(
      `ALTER PUBLICATION ${P} SET (publish = 'insert'); ALTER PUBLICATION ${P} SET (publish = 'insert, update, delete, truncate')`,
    );
    await eventually(() => told(third).length === 2, {
      what: "both tables told",
    });
    await third.close();
    await client.end();
    expect([...unhealed.tables.keys()]).toEqual(["public.t", "public.u"]);
  });

  test("a table that was out for a while is told alone", async () => {
    const { client, unhealed, open } = await ranBefore(server());
    await client.query(`ALTER PUBLICATION ${P} DROP TABLE t`);
    await client.query("UPDATE t SET v = 'lost'");
    await client.query(`ALTER PUBLICATION ${P} ADD TABLE ONLY t`);
    await (await open()).close();
    expect([...unhealed.tables.keys()]).toEqual(["public.t"]);
    expect(unhealed.tables.get("public.t")?.reasons).toEqual([
      expect.stringMatching(/put back.*all changes/),
    ]);
    await client.end();
  });

  test("a table that is taken out ends the stream; the next start takes it in again, and it stays noted", async () => {
    const { client, unhealed, open } = await shop(server());
    const first = await open();
    await client.query(`ALTER PUBLICATION ${P} DROP TABLE t`);
    expect(await first.failure()).toMatchObject({
      code: "PUBLICATION_NARROWED",
      message: expect.stringMatching(/leaves out changes of public\.t \(all changes\) since/),
    });
    await first.close();
    const second = await open();
    await client.query("INSERT INTO t VALUES (2, 'b')");
    await second.until(1);
    await second.close();
    expect([...unhealed.tables.keys()]).toEqual(["public.t"]);
    await client.end();
  });

  test("our own changes are nobody's: another definition, and one that was cut right after its commit", async () => {
    const { url, client, record, unhealed, open } = await ranBefore(server());
    const pipeline = definition(url, { excludeColumns: { "public.t": ["v"] } });
    const second = await open({ pipeline });
    expect(second.log.lines).toContainEqual(expect.stringMatching(/^changed the publication/));
    await second.close();
    const cut = record.states.find(({ terms }) => terms?.own !== undefined);
    expect(cut).toBeDefined();
    const ended = record.state as SlotState;
    record.state = {
      ...(cut as SlotState),
      confirmedLsn: ended.confirmedLsn,
      recentCommits: ended.recentCommits,
    };
    await (await open({ pipeline })).close();
    expect(record.state.terms?.own).toBeUndefined();
    const whole = definition(url);
    await (await open({ pipeline: whole })).close();
    expect([...unhealed.tables.keys()]).toEqual([]);
    await client.end();
  });

  test("filters, column lists and schemas of others: each by what it says less; what says more is only said", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(`CREATE SCHEMA s; CREATE TABLE s.x (id int PRIMARY KEY);
      CREATE TABLE narrow (id int PRIMARY KEY); CREATE TABLE wide (id int PRIMARY KEY);
      CREATE TABLE listed (id int PRIMARY KEY, a text, b text); CREATE TABLE whole (id int PRIMARY KEY, a text, b text)`);
    await client.query("CREATE PUBLICATION theirs FOR TABLE narrow, wide WHERE (id > 0), TABLES IN SCHEMA s");
    await client.query("CREATE PUBLICATION lists FOR TABLE listed (id, a, b), whole (id, a)");
    const found: Record<string, readonly string[]> = {};
    const lines: string[] = [];
    for (const [publication, exclude, change] of [
      [
        "theirs",
        ["public.listed", "public.whole"],
        "ALTER PUBLICATION theirs SET TABLE narrow WHERE (id > 5), wide, TABLES IN SCHEMA s; ALTER PUBLICATION theirs DROP TABLES IN SCHEMA s; ALTER PUBLICATION theirs ADD TABLES IN SCHEMA s",
      ],
      [
        "lists",
        ["public.narrow", "public.wide", "s.*"],
        "ALTER PUBLICATION lists SET TABLE listed (id, b), whole",
      ],
    ] as const) {
      const pipeline = definition(url, {
        publication,
        slot: `${publication}_${new URL(url).pathname.slice(1)}`,
        tables: ["public.*", "s.*"],
        exclude: [...exclude],
      });
      const [record, unhealed] = [new MemoryRecord(), new MemoryUnhealed()];
      await (await OpenSource.open(url, { pipeline, record, unhealed })).close();
      await client.query(change);
      const second = await OpenSource.open(url, { pipeline, record, unhealed });
      await second.close();
      for (const { table, reasons } of unhealed.tables.values()) found[table] = reasons;
      lines.push(...second.log.lines);
    }
    await client.end();
    expect(found).toEqual({
      "public.narrow": [expect.stringMatching(/leaves out changes of rows that its filter leaves out$/)],
      "s.x": [expect.stringMatching(/was changed and put back/)],
      "public.listed": [expect.stringMatching(/leaves out values of a$/)],
    });
    expect(lines).toContainEqual(expect.stringMatching(/publishes more of public\.wide than before: rows$/));
    expect(lines).toContainEqual(
      expect.stringMatching(/publishes more of public\.whole than before: columns$/),
    );
  });

  test("a record without terms takes what there is, and an ordinary restart says nothing", async () => {
    const { client, record, unhealed, open } = await ranBefore(server());
    const { terms, ...older } = record.state as SlotState;
    record.state = older;
    await (await open()).close();
    expect(record.state.terms).toEqual(terms);
    for (const sql of [
      "VACUUM FULL pg_publication",
      "VACUUM FREEZE pg_publication_rel",
      "ALTER TABLE t ADD more text",
    ])
      await client.query(sql);
    await (await open()).close();
    expect(unhealed.tables.size).toBe(0);
    await client.end();
  });
});
