import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PipelineOf } from "../../lib/definition/pipeline.ts";
import { triggers } from "../../lib/definition/pipeline.ts";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import type { TriggersSource } from "../../lib/source/triggers/definition.ts";
import { installTriggers, planTriggers, uninstallTriggers } from "../../lib/source/triggers/triggers.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { changesOf, decodeAll, decoderOver, eventOf, openPinned, SlotReader } from "./slot-reader.ts";
import { inOrder, superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading, told } from "./tables-source.ts";
import { SAMPLES } from "./type-samples.ts";

function pipelineOf(source: Partial<Parameters<typeof triggers>[0]> = {}): PipelineOf<TriggersSource> {
  const pipeline = definitionOf(triggers({ tables: ["public.*"], intervalMs: 50, ...source }));
  return pipeline as PipelineOf<TriggersSource>;
}

/** A database with tables and triggers on them. */
async function prepared(
  url: string,
  schema: string,
  source: Partial<Parameters<typeof triggers>[0]> = {},
): Promise<{ client: pg.Client; pipeline: PipelineOf<TriggersSource> }> {
  const client = await superuser(url);
  await client.query(schema);
  const pipeline = pipelineOf(source);
  await installTriggers(client, pipeline, { lockTimeoutMs: 5000 });
  return { client, pipeline };
}

eachPostgres("triggers", (server) => {
  test("give the events that the log gives with identity full, of every type and under hostile settings", async () => {
    const url = await freshDatabase(server());
    // The names of objects belong to the database of another test.
    const names = Object.keys(SAMPLES).filter((name) => !name.startsWith("reg"));
    const type = (name: string) => `pg_catalog."${name}"${name === "bit" || name === "bpchar" ? "(5)" : ""}`;
    const columns = names.map((name, i) => `c${i} ${type(name)}, l${i} ${type(name)}[]`);
    const { client, pipeline } = await prepared(
      url,
      `CREATE TABLE samples (id int PRIMARY KEY, ${columns.join(", ")});
       ALTER TABLE samples REPLICA IDENTITY FULL`,
    );
    const pinned = await openPinned(url);
    const slot = await SlotReader.create(pinned, "FOR TABLE public.samples");
    const reading = await TablesReading.open(url, pipeline);
    const hostile = new pg.Client({
      connectionString: url,
      options:
        "-c datestyle=SQL,DMY -c timezone=Asia/Kathmandu -c bytea_output=escape -c extra_float_digits=-10 -c intervalstyle=postgres_verbose -c quote_all_identifiers=on -c search_path=public",
    });
    await hostile.connect();
    try {
      const most = Math.max(...Object.values(SAMPLES).map(({ values }) => values.length));
      let rows = 0;
      for (let n = 0; n < most; n++) {
        const used = names.flatMap((name, i) => {
          const value = SAMPLES[name]?.values[n];
          return value === undefined ? [] : [{ i, value: name === "bit" ? value.padEnd(5, "0") : value }];
        });
        // Values of ours are written with plain settings: hostile ones would read some of them differently.
        await client.query(
          `INSERT INTO samples (id, ${used.map(({ i }) => `c${i}`)}) VALUES (${n}, ${used.map((_, k) => `$${k + 1}`)})`,
          used.map(({ value }) => value),
        );
        rows++;
      }
      await hostile.query("UPDATE samples SET id = id");
      await hostile.query(
        `INSERT INTO samples SELECT id + 1000${names.map((_, i) => `, c${i}, NULL`).join("")} FROM samples`,
      );
      await hostile.query("UPDATE samples SET id = -id WHERE id > 1000");
      await hostile.query("DELETE FROM samples WHERE id < 3");
      const expected = changesOf(await decodeAll(decoderOver(pinned), await slot.take())).map(eventOf);
      expect(expected.length).toBeGreaterThan(rows * 3);
      const given = await reading.until(expected.length);
      expect(given.map(told)).toEqual(expected.map(told));
      expect(given.every(({ source }) => (source as { mode?: string }).mode === "trigger")).toBe(true);
      inOrder(reading.changes);
    } finally {
      await reading.close();
      await hostile.end();
      await slot.drop();
      await pinned.end();
      await client.end();
    }
  });

  test("hold quoted names, key changes, truncates, partitions and columns that come and go", async () => {
    const url = await freshDatabase(server());
    const odd = `"Odd ""Schema"".x"."Tab'le (1)"`;
    const { client, pipeline } = await prepared(
      url,
      `CREATE SCHEMA "Odd ""Schema"".x"; CREATE TABLE ${odd} ("Id," int, "va""l;ue" text, b int, PRIMARY KEY (b, "Id,"));
       ALTER TABLE ${odd} REPLICA IDENTITY FULL;
       CREATE TABLE parts (id int, at int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
       CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
       CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
       ALTER TABLE parts_1 REPLICA IDENTITY FULL; ALTER TABLE parts_2 REPLICA IDENTITY FULL; ALTER TABLE parts REPLICA IDENTITY FULL`,
      { tables: ["public.*", '"Odd ""Schema"".x".*'] },
    );
    const slot = await SlotReader.create(client, "FOR ALL TABLES WITH (publish_via_partition_root = true)");
    const reading = await TablesReading.open(url, pipeline);
    try {
      const say = (sql: string) => client.query(sql);
      await say(`INSERT INTO ${odd} VALUES (1, 'a,"b"\\ (c)', 2), (2, '', 2), (3, NULL, 2)`);
      await say(`UPDATE ${odd} SET "Id," = 9 WHERE "Id," = 1`);
      await say(`ALTER TABLE ${odd} ADD COLUMN late numeric DEFAULT 1.50`);
      await say(`UPDATE ${odd} SET late = 'NaN' WHERE "Id," = 2`);
      // One message to the server, one transaction: the shape changes inside of it.
      await say(
        `UPDATE ${odd} SET late = 7; ALTER TABLE ${odd} DROP COLUMN "va""l;ue", ADD COLUMN x int; UPDATE ${odd} SET x = 5`,
      );
      await say(
        `BEGIN; UPDATE ${odd} SET x = 6; ALTER TABLE ${odd} RENAME COLUMN x TO y; UPDATE ${odd} SET y = 7; COMMIT`,
      );
      await say(`TRUNCATE ${odd}`);
      await say("INSERT INTO parts VALUES (1, 5, 'a'), (2, 15, 'b')");
      await say("UPDATE parts SET at = 16 WHERE id = 1");
      await say("DELETE FROM parts; INSERT INTO parts VALUES (3, 3, 'c'); TRUNCATE parts");
      await say(
        "CREATE TABLE parts_3 (v text, gone int, id int NOT NULL, at int NOT NULL); ALTER TABLE parts_3 DROP COLUMN gone",
      );
      await say(
        "ALTER TABLE parts_3 REPLICA IDENTITY FULL; ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30)",
      );
      await say("INSERT INTO parts VALUES (1, 25, 'attached')");
      // The log's messages of the audit tables are not ours.
      const all = changesOf(await decodeAll(decoderOver(client), await slot.take())).map(eventOf);
      const expected = all.filter(({ source }) => source.schema !== "tributary");
      const given = await reading.until(expected.length);
      const plain = (event: (typeof given)[number]) => {
        const { schemaVersion: _, ...rest } = told(event) as Record<string, unknown>;
        return rest;
      };
      expect(given.map(plain)).toEqual(expected.map(plain));
    } finally {
      await reading.close();
      await slot.drop();
      await client.end();
    }
  });

  test.each([
    ["added", "ALTER TABLE t ADD COLUMN x int DEFAULT 5", { id: 1, v: "a", x: 5 }],
    ["dropped", "ALTER TABLE t DROP COLUMN v", { id: 1 }],
    ["renamed", "ALTER TABLE t RENAME COLUMN v TO w", { id: 1, w: "a" }],
    [
      "swapped",
      "ALTER TABLE t ADD COLUMN x text DEFAULT 'b'; ALTER TABLE t DROP COLUMN v",
      { id: 1, x: "b" },
    ],
  ])(
    "a row that is inserted and deleted in one transaction has its columns of each time: %s",
    async (_what, ddl, before) => {
      const url = await freshDatabase(server());
      const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY, v text)");
      try {
        await client.query(`INSERT INTO t VALUES (1, 'a'); ${ddl}; DELETE FROM t`);
        const reading = await TablesReading.open(url, pipeline);
        const events = await reading.until(2);
        expect(events.map((event) => [event.op, event.before, event.after])).toEqual([
          ["c", null, { id: 1, v: "a" }],
          ["d", before, null],
        ]);
        await reading.close();
      } finally {
        await client.end();
      }
    },
  );

  test("a primary key that changes between two changes: each has the key of its time", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)");
    try {
      await client.query(
        `INSERT INTO t VALUES (1, 10); ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n);
         INSERT INTO t VALUES (2, 20); ALTER TABLE t RENAME COLUMN n TO m; DELETE FROM t`,
      );
      const reading = await TablesReading.open(url, pipeline);
      const events = await reading.until(4);
      const keys = events.map(({ source }) => (source as { key?: readonly string[] }).key);
      expect(keys).toEqual([["id"], ["n"], ["m"], ["m"]]);
      const said = reading.log.lines.flatMap(
        (line) => / the key of (\S+ was \(.*\) and is \(.*?\))/.exec(` ${line}`)?.[1] ?? [],
      );
      expect(said, "both keys, once each").toEqual([
        "public.t was (id) and is (n)",
        "public.t was (n) and is (m)",
      ]);
      await reading.settled();
      await reading.close();
      await client.query("INSERT INTO t VALUES (4, 40)");
      const before = await TablesReading.open(url, pipeline, { record: reading.record });
      await before.until(1);
      await before.settled();
      await before.close();
      expect(
        before.log.lines.filter((line) => line.includes("the key of")),
        "nothing new",
      ).toEqual([]);
      await client.query("DELETE FROM t; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)");
      const drained = await TablesReading.open(url, pipeline, { record: reading.record });
      await drained.until(1);
      await drained.settled();
      await drained.close();
      await client.query("INSERT INTO t VALUES (5, 50)");
      const after = await TablesReading.open(url, pipeline, { record: reading.record });
      await after.until(1);
      await after.close();
      expect(
        after.log.lines.filter((line) => line.includes("public.t was (m) and is (id)")),
        "while it was down",
      ).toHaveLength(1);
    } finally {
      await client.end();
    }
  });

  test("whatever is altered between the changes of a transaction, they are told as the log tells them", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(
      url,
      "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL",
    );
    const slot = await SlotReader.create(client, "FOR TABLE public.t");
    const reading = await TablesReading.open(url, pipeline);
    const random = seededRandom(4);
    const columns = ["v"];
    let made = 0;
    const pick = (from: readonly string[]) => from[Math.floor(random() * from.length)];
    const statements = {
      insert: () => `INSERT INTO t (id) SELECT ${made++ * 3} + i FROM generate_series(0, 2) i`,
      update: () =>
        columns.length === 0 ? "" : `UPDATE t SET "${pick(columns)}" = '7' WHERE id % 3 = ${made % 3}`,
      remove: () => `DELETE FROM t WHERE id % 7 = ${made % 7}`,
      add: () => `ALTER TABLE t ADD COLUMN c${columns.push(`c${++made}`) && made} text DEFAULT 'new'`,
      drop: () => (columns.length === 0 ? "" : `ALTER TABLE t DROP COLUMN "${columns.shift()}"`),
      rename: () => {
        if (columns.length === 0) return "";
        const [old, now] = [columns.pop(), `r${++made}`];
        columns.push(now);
        return `ALTER TABLE t RENAME COLUMN "${old}" TO ${now}`;
      },
      undone: () => {
        const name = `u${++made}`;
        return `SAVEPOINT s; ALTER TABLE t ADD COLUMN ${name} int DEFAULT 1; DELETE FROM t WHERE id % 2 = 0; INSERT INTO t (id) VALUES (-1); ROLLBACK TO s`;
      },
    };
    const kinds = Object.values(statements);
    try {
      for (let i = 0; i < 40; i++) {
        await client.query("BEGIN");
        for (let k = 0; k < 8; k++) await client.query(kinds[Math.floor(random() * kinds.length)]?.() ?? "");
        await client.query("COMMIT");
      }
      const expected = changesOf(await decodeAll(decoderOver(client), await slot.take())).map(eventOf);
      expect(expected.length).toBeGreaterThan(100);
      const plain = (event: (typeof expected)[number]) => ({ ...(told(event) as object), schemaVersion: "" });
      expect((await reading.until(expected.length)).map(plain)).toEqual(expected.map(plain));
    } finally {
      await reading.close();
      await slot.drop();
      await client.end();
    }
  });

  test("what the triggers of the first version wrote is read; installing anew replaces them", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(
      `CREATE TABLE t (id int PRIMARY KEY, v text);
       CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10)`,
    );
    await client.query(await readFile(new URL("fixtures/triggers-first.sql", import.meta.url), "utf8"));
    const pipeline = pipelineOf();
    const record = new MemoryReading();
    try {
      await client.query(
        "INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; INSERT INTO p VALUES (1); DELETE FROM p",
      );
      const first = await TablesReading.open(url, pipeline, { record });
      await first.until(4);
      expect(first.log.lines.join()).toContain("not that of this version");
      expect((await planTriggers(client, pipeline, undefined)).current).toBe(false);
      // Under way while the function is replaced.
      await client.query("DELETE FROM t; TRUNCATE p");
      await installTriggers(client, pipeline, { lockTimeoutMs: 5000 });
      await client.query("INSERT INTO t VALUES (2, 'c'); INSERT INTO p VALUES (2)");
      await first.until(8);
      await first.settled();
      await first.close();
      expect(first.events.map(({ op, source }) => `${op} ${source.table}`)).toEqual([
        ...["c t", "u t", "c p", "d p", "d t", "t p", "c t", "c p"],
      ]);
      const second = await TablesReading.open(url, pipeline, { record });
      await second.settled();
      await second.close();
      expect(second.log.lines.join()).not.toContain("not that of this version");
    } finally {
      await client.end();
    }
  });

  test("a transaction that commits late is not missed, as a reader by id misses it", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    const [late, other] = [await superuser(url), await superuser(url)];
    const reading = await TablesReading.open(url, pipeline);
    const naive: string[] = [];
    let naiveId = 0n;
    const naiveRead = async () => {
      const { rows } = await client.query<{ id: string; new_row: string }>(
        `SELECT id::text, new_row FROM tributary.changes WHERE id > ${naiveId} ORDER BY id`,
      );
      for (const { id, new_row } of rows) {
        naive.push(new_row);
        naiveId = BigInt(id);
      }
    };
    try {
      reading.acknowledging = false;
      await late.query("BEGIN; INSERT INTO t VALUES (1, 'late')");
      await other.query("INSERT INTO t VALUES (2, 'early')");
      await naiveRead();
      await reading.until(1);
      await late.query("COMMIT");
      await naiveRead();
      reading.acknowledging = true;
      await reading.close();
      const again = await TablesReading.open(url, pipeline, { record: reading.record });
      const events = await again.until(2);
      expect(events.map(({ after }) => after?.id)).toEqual([2, 1]);
      expect(naive).toEqual(["(2,early)"]);
      await again.close();
    } finally {
      for (const session of [client, late, other]) await session.end();
    }
  });

  test("an older transaction that updates a row after a younger one has the last word, as with a reader by xid it has not", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(
      url,
      "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'first')",
    );
    const [older, younger] = [await superuser(url), await superuser(url)];
    try {
      await older.query("BEGIN; SELECT pg_current_xact_id()");
      await younger.query("UPDATE t SET v = 'younger'");
      await older.query("UPDATE t SET v = 'older, later'; COMMIT");
      const { rows } = await client.query<{ new_row: string }>(
        "SELECT new_row FROM tributary.changes ORDER BY xid, id",
      );
      expect(rows.at(-1)?.new_row).toBe("(1,younger)");
      const reading = await TablesReading.open(url, pipeline);
      const events = await reading.until(2);
      expect(events.map(({ after }) => after?.v)).toEqual(["younger", "older, later"]);
      await reading.close();
    } finally {
      for (const session of [client, older, younger]) await session.end();
    }
  });

  test("what a cascade or another trigger changes in a row stands behind the change that it reacts to", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(
      url,
      `CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON UPDATE CASCADE DEFERRABLE, n int DEFAULT 0);
       CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         UPDATE tree SET n = n + 1 WHERE parent IS NOT DISTINCT FROM NEW.parent AND pg_trigger_depth() < 3; RETURN NULL; END $$;
       CREATE TRIGGER aaa AFTER UPDATE OF n ON tree FOR EACH ROW EXECUTE FUNCTION touch();
       CREATE FUNCTION replace_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         DELETE FROM tree WHERE id = NEW.id; RETURN NEW; END $$;
       CREATE TRIGGER bbb BEFORE INSERT ON tree FOR EACH ROW EXECUTE FUNCTION replace_row()`,
    );
    try {
      await client.query("INSERT INTO tree VALUES (1, 1), (2, 1), (3, 2), (4, NULL)");
      await client.query("UPDATE tree SET id = id + 100");
      await client.query("UPDATE tree SET n = n + 1 WHERE id < 103");
      await client.query(
        "BEGIN; UPDATE tree SET n = 5 WHERE id = 101; SAVEPOINT s; UPDATE tree SET n = 9 WHERE id = 102; ROLLBACK TO s; UPDATE tree SET n = n + 1000 WHERE id > 101; COMMIT",
      );
      await client.query("INSERT INTO tree VALUES (104, NULL, 77)");
      const reading = await TablesReading.open(url, pipeline);
      const { rows } = await client.query<{ count: number }>(
        "SELECT count(*)::int FROM tributary.changes WHERE op <> 'T'",
      );
      expect(rows[0]?.count).toBeGreaterThan(20);
      await reading.until(rows[0]?.count as number);
      const table = new Map<unknown, unknown>();
      for (const { op, before, after } of reading.events) {
        // Each old row is what was told last: nothing was told out of its order.
        if (before) expect(before).toEqual(table.get(before.id));
        if (op === "d") table.delete(before?.id);
        else table.set(after?.id, after);
      }
      const now = await client.query("SELECT id, parent, n FROM tree ORDER BY id");
      expect(
        [...table.values()].sort(
          (a, b) => Number((a as { id: number }).id) - Number((b as { id: number }).id),
        ),
      ).toEqual(now.rows);
      await reading.close();
    } finally {
      await client.end();
    }
  });

  test("a batch that was recorded and not published is given again, byte by byte", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY, v text)", {
      batchRows: 7,
    });
    try {
      const record = new MemoryReading();
      // Its number is lower than all others', and it commits between the two readings.
      const late = await superuser(url);
      await late.query("BEGIN; INSERT INTO t VALUES (99, 'late')");
      await client.query("INSERT INTO t SELECT i, repeat('x', i) FROM generate_series(1, 40) i");
      const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
      await first.until(40);
      await first.close();
      // What commits in between belongs to the next batch.
      await late.query("COMMIT");
      await late.end();
      await client.query("UPDATE t SET v = 'new' WHERE id < 99");
      const second = await TablesReading.open(url, pipeline, { record });
      await second.until(81);
      const timeless = (reading: TablesReading) =>
        reading.changes.map(({ topic, partition, position, json }) => ({
          topic: topic.name,
          partition,
          position,
          json: json.replace(/"ts_ms":\d+,"source"/, '"source"'),
        }));
      expect(timeless(second).slice(0, 40)).toEqual(timeless(first));
      inOrder(second.changes);
      await second.settled();
      await second.close();
      // Nothing is given twice after that, and what was read is deleted.
      const third = await TablesReading.open(url, pipeline, { record });
      await client.query("DELETE FROM t WHERE id = 1");
      const events = await third.until(1);
      expect(events.map(({ op, before }) => [op, before?.id])).toEqual([["d", 1]]);
      await third.settled();
      await eventually(async () => (await client.query("SELECT FROM tributary.changes")).rowCount === 0, {
        what: "an empty audit table",
      });
      await third.close();
    } finally {
      await client.end();
    }
  });

  test("a session that is cut goes on where it was", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY, v text)", {
      batchRows: 10,
    });
    try {
      const reading = await TablesReading.open(url, pipeline);
      for (let i = 0; i < 30; i++) {
        await client.query("INSERT INTO t SELECT i, 'x' FROM generate_series($1::int, $2::int) i", [
          i * 20,
          i * 20 + 19,
        ]);
        await client.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tributary'",
        );
      }
      const events = await reading.until(600);
      expect(events.map(({ after }) => after?.id)).toEqual(Array.from({ length: 600 }, (_, i) => i));
      inOrder(reading.changes);
      await reading.close();
    } finally {
      await client.end();
    }
  });

  test("transaction ids that a crash gives again are not taken for read", async () => {
    const url = await freshDatabase(server());
    const { client, pipeline } = await prepared(url, "CREATE TABLE t (id int PRIMARY KEY)");
    try {
      const record = new MemoryReading();
      const reading = await TablesReading.open(url, pipeline, { record });
      await client.query("INSERT INTO t VALUES (1)");
      await reading.until(1);
      await reading.settled();
      await reading.close();
      // As if the snapshot had seen transactions as ended that left no trace.
      const { rows } = await client.query<{ next: string }>(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS next",
      );
      const next = BigInt(rows[0]?.next ?? 0);
      const place = record.state?.place as { after: { id: string } };
      const ahead = { after: { ...place.after, snapshot: `${next + 50n}:${next + 50n}:` } };
      record.state = { ...(record.state as NonNullable<typeof record.state>), place: ahead };
      await client.query("INSERT INTO t VALUES (2)");
      for (let i = 0; i < 60; i++) await client.query("SELECT pg_current_xact_id()");
      const again = await TablesReading.open(url, pipeline, { record });
      expect((await again.until(1)).map(({ after }) => after?.id)).toEqual([2]);
      await again.settled();
      await again.close();
      record.state = {
        ...(record.state as NonNullable<typeof record.state>),
        place: { after: { id: "9", snapshot: `${next + 5000n}:${next + 5000n}:` } },
      };
      const behind = await TablesReading.open(url, pipeline, { record });
      await eventually(() => behind.error !== undefined, { what: "an error" });
      expect(behind.error).toMatchObject({ code: "SERVER_BEHIND" });
      await behind.close();
    } finally {
      await client.end();
    }
  });
});

describe("installing triggers", () => {
  withPostgres((server) => {
    let url: string;
    let owner: pg.Client;
    beforeAll(async () => {
      url = await freshDatabase(server());
      const admin = await superuser(url);
      await admin.query(`CREATE ROLE owner LOGIN PASSWORD 'x'; CREATE ROLE app LOGIN PASSWORD 'x'; CREATE ROLE reader LOGIN PASSWORD 'x';
        GRANT ALL ON DATABASE ${new URL(url).pathname.slice(1)} TO owner; GRANT ALL ON SCHEMA public TO owner`);
      await admin.end();
      owner = await superuser(as("owner"));
      await owner.query(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); GRANT ALL ON a, b TO app; GRANT SELECT ON a, b TO reader",
      );
    });
    afterAll(async () => {
      await owner?.end();
    });
    const as = (user: string) => Object.assign(new URL(url), { username: user, password: "x" }).toString();

    test("needs no superuser, runs twice, follows the definition, and goes away whole", async () => {
      const pipeline = pipelineOf({ tables: ["public.a"] });
      await expect(TablesReading.open(as("reader"), pipeline)).rejects.toMatchObject({
        problems: [
          expect.objectContaining({
            code: "AUDIT_TABLE",
            remedy: expect.stringContaining("--reader reader"),
          }),
        ],
      });
      expect(await planTriggers(owner, pipeline, undefined)).toMatchObject({
        schema: "none",
        missing: [{ table: "a" }],
      });
      await installTriggers(owner, pipeline, { reader: "reader", lockTimeoutMs: 1000 });
      await installTriggers(owner, pipeline, { reader: "reader", lockTimeoutMs: 1000 });
      const both = pipelineOf({ tables: ["public.*"] });
      await expect(TablesReading.open(as("reader"), both)).rejects.toMatchObject({
        problems: [
          expect.objectContaining({ code: "TRIGGERS", message: expect.stringContaining("public.b") }),
        ],
      });
      await installTriggers(owner, both, { reader: "reader", lockTimeoutMs: 1000 });
      await owner.query('ALTER TABLE b DISABLE TRIGGER "!tributary_row"');
      expect((await planTriggers(owner, both, undefined)).missing).toEqual([
        { schema: "public", table: "b" },
      ]);
      await installTriggers(owner, both, { lockTimeoutMs: 1000 });

      const app = await superuser(as("app"));
      await app.query("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)");
      await expect(app.query("SELECT FROM tributary.changes")).rejects.toThrow(/permission denied/);
      await app.query("CREATE TEMP TABLE fake (id int)");
      await expect(
        app.query("CREATE TRIGGER x AFTER INSERT ON fake FOR EACH ROW EXECUTE FUNCTION tributary.capture()"),
      ).rejects.toThrow(/permission denied/);
      await app.end();
      const reading = await TablesReading.open(as("reader"), both);
      expect((await reading.until(2)).map(({ source }) => source.table)).toEqual(["a", "b"]);
      await reading.settled();
      await reading.close();

      expect(
        (await planTriggers(owner, pipelineOf({ tables: ["public.b"] }), undefined)).surplus,
      ).toMatchObject([{ table: "a" }]);
      await owner.query("INSERT INTO a VALUES (5)");
      expect(await uninstallTriggers(owner, both, { lockTimeoutMs: 1000 })).toMatchObject({ waiting: 1 });
      const { rows } = await owner.query("SELECT FROM pg_trigger WHERE NOT tgisinternal");
      expect(rows).toEqual([]);
      expect(await planTriggers(owner, both, undefined)).toMatchObject({ schema: "none" });
    });

    test("a schema that is not ours is not touched", async () => {
      await owner.query("CREATE SCHEMA theirs");
      await expect(planTriggers(owner, pipelineOf({ schema: "theirs" }), undefined)).rejects.toMatchObject({
        problems: [expect.objectContaining({ code: "AUDIT_SCHEMA" })],
      });
    });
  });
});
