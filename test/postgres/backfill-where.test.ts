import { expect, test } from "vitest";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

eachPostgres("backfill by pages of the key", (server) => {
  test("looks at a bounded part of the table for each chunk, however few rows the filter passes", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TABLE t (id int PRIMARY KEY, hot boolean DEFAULT false);
      INSERT INTO t SELECT i FROM generate_series(1, 5000) i; INSERT INTO t VALUES (5001, true), (5002, false);
      CREATE FUNCTION seen(hot boolean) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
        $$ BEGIN PERFORM pg_sleep(0.0002); RETURN hot; END $$`);
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url, { snapshot: "never" }),
      backfill: { record, pollMs: 20, goal: { ms: 100, bytes: 100_000, firstRows: 200 } },
    });
    const places = new Set<string>();
    const write = record.write.bind(record);
    record.write = async (backfill, update) => {
      if (update.progress?.lastKey) places.add(update.progress.lastKey[0] as string);
      return await write(backfill, update);
    };
    await record.request("public.t", { where: "public.seen(hot)", sweep: false, requestedAt: 1 });
    await ended(record, "public.t", source);
    const read = source.changes.map(parsed).filter(({ op }) => op === "r");
    expect(read.map(({ after }) => after)).toEqual([{ id: 5001, hot: true }]);
    // Chunks without a row move it on: a task that begins again does not look at them once more.
    expect([...places].filter((id) => Number(id) < 5001)).not.toEqual([]);
    expect(record.of("public.t").progress?.chunk).toBeGreaterThan(3);
    await source.close();
    await sql.end();
  });

  test("reads every row when a label of the enum in its key is renamed between chunks", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TYPE grade AS ENUM ('a', 'b', 'c'); CREATE DOMAIN narrow AS grade; CREATE DOMAIN graded AS narrow;
      CREATE TABLE t (k graded, id int, PRIMARY KEY (k, id));
      INSERT INTO t SELECT k, i FROM unnest(enum_range(NULL::grade)) k, generate_series(1, 400) i`);
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url, { backfill: { rowsPerSecond: 600 } }),
      backfill: { record, pollMs: 20, goal: { ms: 1000, bytes: 300, firstRows: 20 } },
    });
    await source.until(100);
    // Two labels change places: keys of before say another place of the table, without an error.
    await sql.query(
      "ALTER TYPE grade RENAME VALUE 'a' TO 'x'; ALTER TYPE grade RENAME VALUE 'c' TO 'a'; ALTER TYPE grade RENAME VALUE 'x' TO 'c'",
    );
    await ended(record, "public.t", source);
    const begun = source.changes.findLastIndex((change) => parsed(change).after?.id === 1);
    expect(begun).toBeGreaterThan(0);
    expect(replay(source.changes, "public.t").size).toBe(1200);
    await source.close();
    await sql.end();
  });

  test("begins anew when the key that it reads behind is no value any more", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(`CREATE TYPE grade AS ENUM ('a', 'b'); CREATE TABLE t (k grade, id int, PRIMARY KEY (k, id));
      INSERT INTO t SELECT k, i FROM unnest(enum_range(NULL::grade)) k, generate_series(1, 400) i`);
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url, { backfill: { rowsPerSecond: 600 } }),
      backfill: { record, pollMs: 20, goal: { ms: 1000, bytes: 300, firstRows: 20 } },
    });
    await source.until(100);
    await sql.query("ALTER TYPE grade RENAME VALUE 'a' TO 'A'");
    await ended(record, "public.t", source);
    const read = source.changes.map(parsed).filter(({ op, after }) => op === "r" && after?.k !== "a");
    expect(read).toHaveLength(800);
    await source.close();
    await sql.end();
  });
});
