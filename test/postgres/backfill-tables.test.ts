import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { readBackfillEnd } from "../../lib/change/control-event.ts";
import type { WireRow } from "../../lib/change/event.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay, rowsGiven } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";
import { SAMPLES } from "./type-samples.ts";

/** Small chunks, so that pages meet every border. */
const GOAL = { ms: 50, bytes: 4_000, firstRows: 3 };

const TABLES: Readonly<Record<string, string>> = {
  composite: `CREATE TABLE composite (a text, b int, c bigint, v text, PRIMARY KEY (b, a, c));
    INSERT INTO composite SELECT 'k' || (i % 5), i % 7, i, 'v' || i FROM generate_series(1, 200) i`,
  uuids: `CREATE TABLE uuids (id uuid PRIMARY KEY, v int);
    INSERT INTO uuids SELECT md5(i::text)::uuid, i FROM generate_series(1, 200) i`,
  bigints: `CREATE TABLE bigints (id bigint PRIMARY KEY);
    INSERT INTO bigints SELECT i FROM generate_series(-100, 100) i;
    INSERT INTO bigints VALUES (-9223372036854775808), (9223372036854775807), (9007199254740993), (9007199254740992)`,
  numerics: `CREATE TABLE numerics (id numeric PRIMARY KEY, v int);
    INSERT INTO numerics SELECT i / 7.0, i FROM generate_series(-80, 80) i;
    INSERT INTO numerics VALUES ('NaN', 1), (123456789012345678901234567890.00, 2), (1e-20, 3), (0.0000, 4) ON CONFLICT DO NOTHING`,
  floats: `CREATE TABLE floats (id float8 PRIMARY KEY);
    INSERT INTO floats SELECT sqrt(i) - 5 FROM generate_series(1, 100) i; INSERT INTO floats VALUES ('NaN'), ('Infinity'), ('-Infinity'), (1e-300)`,
  times: `CREATE TABLE times (id timestamptz PRIMARY KEY, v text);
    INSERT INTO times SELECT '2026-11-23 10:00+05:45'::timestamptz + i * interval '1 microsecond' FROM generate_series(1, 100) i;
    INSERT INTO times VALUES ('infinity'), ('-infinity'), ('0044-03-15 12:00 BC')`,
  bytes: `CREATE TABLE bytes (id bytea PRIMARY KEY);
    INSERT INTO bytes SELECT decode(lpad(to_hex(i), 4, '0'), 'hex') FROM generate_series(1, 200) i; INSERT INTO bytes VALUES ('\\x')`,
  texts: `CREATE TABLE texts (id text PRIMARY KEY, v int);
    INSERT INTO texts SELECT repeat(chr(97 + i % 26), 1 + i % 4) || i, i FROM generate_series(1, 150) i;
    INSERT INTO texts VALUES ('', 1), (' ', 2), (E'tab\\tnew\\nline\\\\N', 3), ('\\N', 4), ('it''s', 5), ('日本語 🙂', 6), (E'\\\\', 7), (E'\\x01', 8)`,
  icu: `CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
    CREATE TABLE icu (id text COLLATE german PRIMARY KEY, v int);
    INSERT INTO icu SELECT x || i, i FROM generate_series(1, 40) i, unnest(ARRAY['a','A','ä','Ä','z','Z','ß','ss','-','é']) x`,
  loose: `CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE loose (id text COLLATE loose PRIMARY KEY, v int);
    INSERT INTO loose SELECT x || i, i FROM generate_series(1, 60) i, unnest(ARRAY['a','B','é']) x`,
  other_index_collation: `CREATE TABLE other_index_collation (id text NOT NULL COLLATE "C", v int);
    CREATE UNIQUE INDEX by_phonebook ON other_index_collation (id COLLATE german);
    ALTER TABLE other_index_collation REPLICA IDENTITY USING INDEX by_phonebook;
    INSERT INTO other_index_collation SELECT x || i, i FROM generate_series(1, 30) i, unnest(ARRAY['a','A','ä','Z']) x`,
  mixed_directions: `CREATE TABLE mixed_directions (a int NOT NULL, b text NOT NULL, v int);
    CREATE UNIQUE INDEX up_and_down ON mixed_directions (a ASC, b DESC) INCLUDE (v);
    ALTER TABLE mixed_directions REPLICA IDENTITY USING INDEX up_and_down;
    INSERT INTO mixed_directions SELECT i % 4, 'b' || i, i FROM generate_series(1, 150) i`,
  pattern_ops: `CREATE TABLE pattern_ops (id text NOT NULL, v int);
    CREATE UNIQUE INDEX by_pattern ON pattern_ops (id text_pattern_ops);
    ALTER TABLE pattern_ops REPLICA IDENTITY USING INDEX by_pattern;
    INSERT INTO pattern_ops SELECT chr(65 + i % 50) || i, i FROM generate_series(1, 150) i`,
  citexts: `CREATE EXTENSION citext SCHEMA public;
    CREATE TABLE citexts (id citext PRIMARY KEY, v int);
    INSERT INTO citexts SELECT CASE WHEN i % 2 = 0 THEN 'Key' ELSE 'kEY' END || i, i FROM generate_series(1, 150) i`,
  domains: `CREATE DOMAIN code AS varchar(12) CHECK (value <> ''); CREATE TYPE mood AS ENUM ('z', 'a', 'm');
    CREATE TABLE domains (m mood, c code, p char(5), PRIMARY KEY (m, c, p));
    INSERT INTO domains SELECT (ARRAY['z','a','m'])[1 + i % 3]::mood, 'c' || i, 'p' || (i % 3) FROM generate_series(1, 120) i`,
  full_identity: `CREATE TABLE full_identity (id int PRIMARY KEY, v text);
    ALTER TABLE full_identity REPLICA IDENTITY FULL; INSERT INTO full_identity SELECT i, 'v' || i FROM generate_series(1, 100) i`,
  full_unique: `CREATE TABLE full_unique (v text, id int NOT NULL UNIQUE);
    ALTER TABLE full_unique REPLICA IDENTITY FULL; INSERT INTO full_unique SELECT 'v' || i, i FROM generate_series(1, 100) i`,
  'Od"d. näme': `CREATE TABLE "Od""d. näme" ("I d" int, "q'uo\\te" text, PRIMARY KEY ("I d"));
    INSERT INTO "Od""d. näme" SELECT i, 'v' || i FROM generate_series(1, 50) i`,
  generated: `CREATE TABLE generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
    INSERT INTO generated SELECT generate_series(1, 50)`,
  dropped_column: `CREATE TABLE dropped_column (gone int, id int PRIMARY KEY, v int); INSERT INTO dropped_column SELECT i, i, i FROM generate_series(1, 50) i;
    ALTER TABLE dropped_column DROP COLUMN gone, ADD COLUMN late int DEFAULT 7`,
  empty: "CREATE TABLE empty (id int PRIMARY KEY)",
  root: `CREATE TABLE root (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE root_north PARTITION OF root FOR VALUES IN ('north');
    CREATE TABLE root_rest PARTITION OF root DEFAULT PARTITION BY HASH (id);
    CREATE TABLE root_rest_0 PARTITION OF root_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE root_rest_1 PARTITION OF root_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO root SELECT i, (ARRAY['north','south','west'])[1 + i % 3], i FROM generate_series(1, 200) i`,
};

/** Tables of which only partitions are captured stand apart: the pattern would name their root too. */
const LEAF = `CREATE SCHEMA apart; CREATE TABLE apart.trunk (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
  CREATE TABLE apart.leaf PARTITION OF apart.trunk FOR VALUES FROM (0) TO (1000);
  CREATE TABLE apart.other PARTITION OF apart.trunk FOR VALUES FROM (1000) TO (2000);
  INSERT INTO apart.trunk SELECT i * 20, i FROM generate_series(1, 90) i`;

async function opened(url: string, source: Parameters<typeof definition>[1] = {}) {
  const record = new MemoryBackfills();
  const open = await OpenSource.open(url, {
    pipeline: definition(url, { backfill: { tablesAtOnce: 4 }, ...source }),
    record: new MemoryRecord(),
    backfill: { record, pollMs: 20, goal: GOAL },
  });
  return { record, open };
}

/** The table whose end of a backfill the event marks. */
function endOf(change: SourceChange): string | undefined {
  return readBackfillEnd(parsed(change))?.table;
}

async function count(sql: pg.Client, table: string): Promise<number> {
  return Number((await sql.query(`SELECT count(*) AS n FROM ${table}`)).rows[0].n);
}

eachPostgres("backfill of hostile tables", (server) => {
  test("each row of every table comes once, as the log tells it", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    for (const statements of Object.values(TABLES)) await sql.query(statements);
    await sql.query(LEAF);
    const { record, open } = await opened(url, { tables: ["public.*", "apart.leaf"] });
    const names = [
      ...Object.keys(TABLES)
        .filter((name) => name !== 'Od"d. näme')
        .map((name) => `public.${name}`),
    ];
    names.push('public."Od""d. näme"', "apart.leaf");
    for (const name of names) await ended(record, name, open);
    inOrder(open.changes);
    for (const name of names) {
      const rows = open.changes.filter(({ table }) => table === name).map(parsed);
      const read = rows.filter(({ op }) => op === "r");
      expect([name, read.length]).toEqual([name, await count(sql, name)]);
      // Without a primary key there is no key in the events to keep it by.
      const distinct = name === "public.full_unique" ? read.length : replay(open.changes, name).size;
      expect([name, distinct]).toEqual([name, read.length]);
      const ends = open.changes.filter((change) => endOf(change) === name);
      expect([name, ends.length]).toEqual([name, 1]);
      expect(open.changes.findLastIndex(({ table }) => table === name)).toBeLessThan(
        open.changes.indexOf(ends[0] as SourceChange),
      );
    }
    // Every row once more, by the log: equal values, equal shape.
    const given = open.changes.length;
    const touched = names.filter((name) => name !== "public.empty");
    let total = 0;
    for (const name of touched) {
      await sql.query(`UPDATE ${name} SET ${await firstColumn(sql, name)}`);
      total += await count(sql, name);
    }
    await open.until(given + total);
    for (const name of touched) {
      const of = (op: string) =>
        open.changes
          .filter(({ table }) => table === name)
          .map(parsed)
          .filter((event) => event.op === op)
          .map(({ after, source }) =>
            JSON.stringify([after, source.schemaVersion, source.key, source.schema, source.table]),
          )
          .sort();
      expect([name, of("u")]).toEqual([name, of("r")]);
      const partitions = (op: string) =>
        new Map(
          open.changes
            .filter(({ table, json }) => table === name && json.startsWith(`{"op":"${op}"`))
            .map((c) => [JSON.stringify(parsed(c).after), c.partition]),
        );
      expect(partitions("u")).toEqual(partitions("r"));
    }
    await open.close();
    await sql.end();
  });

  test("each row of every table comes once through a filter that passes them all", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    for (const statements of Object.values(TABLES)) await sql.query(statements);
    const { record, open } = await opened(url, { snapshot: "never" });
    const names = Object.keys(TABLES).map((name) =>
      name.startsWith("Od") ? 'public."Od""d. näme"' : `public.${name}`,
    );
    for (const name of names) await record.request(name, { where: "true", sweep: false, requestedAt: 1 });
    for (const name of names) await ended(record, name, open);
    inOrder(open.changes);
    for (const name of names) {
      const rows = open.changes.filter(({ table }) => table === name).map(parsed);
      const read = rows.filter(({ op }) => op === "r").map(({ after }) => JSON.stringify(after));
      expect([name, read.length]).toEqual([name, await count(sql, name)]);
      expect([name, new Set(read).size]).toEqual([name, read.length]);
    }
    await open.close();
    await sql.end();
  });

  test("values of every type come as the log tells them", async () => {
    const url = await freshDatabase(server(), {
      settings: {
        datestyle: "SQL, DMY",
        timezone: "Asia/Kathmandu",
        bytea_output: "escape",
        intervalstyle: "postgres_verbose",
      },
    });
    const sql = await superuser(url);
    await sql.query("CREATE SCHEMA app; CREATE TABLE app.odd (id int); CREATE TYPE app.mood AS ENUM ('sad')");
    const { rows } = await sql.query("SELECT current_setting('server_version_num')::int / 10000 AS major");
    const samples = Object.entries(SAMPLES).filter(([, { since = 0 }]) => since <= rows[0].major);
    const columns = samples.map(([type], i) => `c${i} ${type}`);
    const most = Math.max(...samples.map(([, { values }]) => values.length));
    await sql.query(`CREATE TABLE types (id int PRIMARY KEY, touched int, ${columns.join(", ")})`);
    for (let row = 0; row < most; row++) {
      const values = samples.map(([type, { values }]) =>
        values[row] === undefined
          ? "NULL"
          : `E'${(values[row] as string).replaceAll("\\", "\\\\").replaceAll("'", "''")}'::${type}`,
      );
      await sql.query(`INSERT INTO types VALUES (${row}, 0, ${values.join(", ")})`);
    }
    const { record, open } = await opened(url);
    await ended(record, "public.types", open);
    await sql.query("ALTER TABLE types REPLICA IDENTITY FULL; UPDATE types SET touched = 0");
    await open.until(2 * most + 1);
    const after = (op: string) =>
      open.changes
        .map(parsed)
        .filter((event) => event.op === op)
        .map((event) => event.after);
    expect(after("r")).toHaveLength(most);
    expect(after("u")).toEqual(after("r"));
    await open.close();
    await sql.end();
  });

  test("column lists and row filters hold", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TABLE people (id int PRIMARY KEY, secret text, name text);
      INSERT INTO people SELECT i, 's', 'n' || i FROM generate_series(1, 100) i`);
    const { record, open } = await opened(url, {
      excludeColumns: { "public.people": ["secret"] },
      where: { "public.people": "id % 10 = 3" },
    });
    await ended(record, "public.people", open);
    const read = open.changes.map(parsed).filter(({ op }) => op === "r");
    expect(read.map(({ after }) => after)).toEqual(
      Array.from({ length: 10 }, (_, i): WireRow => ({ id: i * 10 + 3, name: `n${i * 10 + 3}` })),
    );
    await open.close();
    await sql.end();
  });

  test("a part of a table for one consumer: no sweep, and the rows say whose they are", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)");
    const { record, open } = await opened(url, { snapshot: "never" });
    await record.request("public.t", {
      where: "id > 40 -- the last",
      consumer: "view",
      sweep: true,
      requestedAt: 1,
    });
    await ended(record, "public.t", open);
    const events = open.changes.map(parsed);
    expect(events.filter(({ op }) => op === "r").map(({ after }) => after?.id)).toEqual([
      41, 42, 43, 44, 45, 46, 47, 48, 49, 50,
    ]);
    expect(new Set(events.map(({ source }) => source.backfill?.consumer))).toEqual(new Set(["view"]));
    const content = JSON.parse(Buffer.from(events.at(-1)?.message?.content ?? "", "base64").toString());
    expect(content).toMatchObject({ table: "public.t", run: 1, sweep: false, consumer: "view" });
    for (const where of [
      "id > 40) TO STDOUT; DROP TABLE t; --",
      "no_such_column = 1",
      "id > 40) OR (id < 3",
      "true; DROP TABLE t",
    ]) {
      await record.request("public.t", { where, sweep: false, requestedAt: 2 });
      await ended(record, "public.t", open, "refused");
      expect(record.of("public.t").progress?.reason).toMatch(/the server refuses its filter/);
    }
    await record.request("public.t", { where: "('x' || id)::int > 0", sweep: false, requestedAt: 3 });
    await ended(record, "public.t", open, "refused");
    expect(record.of("public.t").progress?.reason).toMatch(/^the server's error 22P02/);
    expect(await count(sql, "t")).toBe(50);
    await open.close();
    await sql.end();
  });

  test("rows are not read from a server that is no standby, or none any more", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    const record = new MemoryBackfills();
    const open = await OpenSource.open(url, {
      pipeline: definition(url),
      record: new MemoryRecord(),
      // As it is after a promotion: the same cluster, not in recovery.
      backfill: { record, pollMs: 20, standby: connectionFromUrl(url) },
    });
    await ended(record, "public.t", open, "refused");
    expect(record.of("public.t").progress?.reason).toMatch(/no standby/);
    expect(open.changes).toEqual([]);
    await open.close();
    await sql.end();
  });

  test("a row that is larger than the stream takes ends its table's backfill, not the stream", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x'), (2, repeat('x', 5000));
      CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good VALUES (1)`);
    const record = new MemoryBackfills();
    const open = await OpenSource.open(url, {
      pipeline: definition(url),
      record: new MemoryRecord(),
      backfill: { record, pollMs: 20, maxEventBytes: 4000 },
    });
    await ended(record, "public.t", open, "refused");
    expect(record.of("public.t").progress?.reason).toMatch(/a row makes an event of 5\d\d\d bytes/);
    await ended(record, "public.good", open);
    const before = open.changes.length;
    await sql.query("INSERT INTO t VALUES (3, 'y')");
    await open.until(before + 1);
    expect(open.error).toBeUndefined();
    await open.close();
    await sql.end();
  });

  test("what cannot be backfilled is refused, and the stream and the rest go on", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TABLE keyless (v int); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES (1);
      CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good SELECT generate_series(1, 500);
      CREATE TABLE doomed (id int PRIMARY KEY, v text); INSERT INTO doomed SELECT i, repeat('x', 100) FROM generate_series(1, 50000) i`);
    const { record, open } = await opened(url, { backfill: { tablesAtOnce: 4, rowsPerSecond: 3000 } });
    await ended(record, "public.keyless", open, "refused");
    expect(record.of("public.keyless").progress?.reason).toMatch(/neither a primary key nor a unique index/);
    await eventually(() => open.changes.some(({ table }) => table === "public.doomed"), {
      what: "its first rows",
    });
    await sql.query("DROP TABLE doomed");
    await ended(record, "public.doomed", open, "refused");
    expect(record.of("public.doomed").progress?.reason).toMatch(/does not exist/);
    await ended(record, "public.good", open);
    await sql.query("INSERT INTO keyless VALUES (2)");
    await eventually(() => open.changes.some(({ table }) => table === "public.keyless"), {
      what: "the stream to go on",
    });
    await open.close();
    await sql.end();
  });

  test("a key that may hold NULLs of before its NOT NULL is no key to page by, until that is validated (18)", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    const { rows } = await sql.query("SELECT current_setting('server_version_num')::int AS version");
    if (rows[0].version >= 180_000) {
      await sql.query(`CREATE TABLE t (id int, v text); CREATE UNIQUE INDEX ON t (id); ALTER TABLE t REPLICA IDENTITY FULL;
        INSERT INTO t SELECT i, 'v' FROM generate_series(1, 40) i; INSERT INTO t VALUES (NULL, 'null');
        ALTER TABLE t ADD CONSTRAINT nn NOT NULL id NOT VALID`);
      const { record, open } = await opened(url, {});
      await ended(record, "public.t", open, "refused");
      expect(record.of("public.t").progress?.reason).toMatch(/unique index over published NOT NULL columns/);
      await sql.query("DELETE FROM t WHERE id IS NULL; ALTER TABLE t VALIDATE CONSTRAINT nn");
      await record.request("public.t", { sweep: true, requestedAt: 1 });
      await ended(record, "public.t", open);
      expect(rowsGiven(open)).toBe(40);
      await open.close();
    }
    await sql.end();
  });

  test("a table that changes its form and grows in the middle is read to its end", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE t (id bigserial PRIMARY KEY, v text); INSERT INTO t (v) SELECT 'v' || i FROM generate_series(1, 3000) i",
    );
    const { record, open } = await opened(url, { backfill: { rowsPerSecond: 4000 } });
    for (let i = 0; record.items.get("public.t")?.status !== "done"; i++) {
      await delay(20);
      if (i < 60) {
        if (i % 10 === 3) await sql.query(`ALTER TABLE t ADD COLUMN c${i} int DEFAULT ${i}`);
        if (i % 10 === 6)
          await sql.query(`ALTER TABLE t ALTER v TYPE ${i % 20 === 6 ? "varchar(500)" : "text"}`);
        if (i % 10 === 8) await sql.query("VACUUM FULL t");
        await sql.query(
          "INSERT INTO t (v) SELECT 'new' FROM generate_series(1, 40); UPDATE t SET v = v || '!' WHERE id % 97 = 5",
        );
      }
      expect(record.of("public.t").status).not.toBe("refused");
      if (open.error) throw open.error;
    }
    await sql.query("UPDATE t SET v = 'last' WHERE id = 1");
    await eventually(() => open.changes.some(({ json }) => json.includes('"last"')), {
      what: "the last change",
    });
    const held = replay(open.changes, "public.t");
    const { rows } = await sql.query("SELECT id::text AS id, v FROM t ORDER BY t.id");
    expect(
      [...held.values()].map(({ id, v }) => ({ id, v })).sort((a, b) => Number(a.id) - Number(b.id)),
    ).toEqual(rows);
    await open.close();
    await sql.end();
  });
});

/** An assignment that changes nothing: every row is written to the log. */
async function firstColumn(sql: pg.Client, table: string): Promise<string> {
  const { rows } = await sql.query(
    "SELECT quote_ident(attname) AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum LIMIT 1",
    [table],
  );
  return `${rows[0].name} = ${rows[0].name}`;
}
