import type pg from "pg";
import { expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay } from "./backfill-replay.ts";
import { MemoryRereads } from "./reread-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

/** A table whose large values stand apart from their rows. */
const table = (rows: number) => `
  CREATE TABLE notes (id int PRIMARY KEY, short text, note text);
  ALTER TABLE notes ALTER note SET STORAGE EXTERNAL;
  INSERT INTO notes SELECT i, 'n' || i, repeat(chr(97 + i % 26), 3000) FROM generate_series(1, ${rows}) i`;

/** Rows with large values that are there before the slot is: no consumer has them. */
async function scene(server: Parameters<typeof freshDatabase>[0], setup = table(50)) {
  const url = await freshDatabase(server);
  const sql = await superuser(url);
  await sql.query(setup);
  const record = new MemoryRecord();
  const rereads = new MemoryRereads();
  const backfills = new MemoryBackfills();
  const open = (more: Partial<Parameters<typeof OpenSource.open>[1]> = {}) =>
    OpenSource.open(url, {
      pipeline: definition(url, { snapshot: "never" }),
      record,
      backfill: { record: backfills, rereads, pollMs: 50 },
      ...more,
    });
  return { url, sql, record, rereads, backfills, open };
}

/** The rows of the table as they stand, by id. */
async function rowsOf(sql: pg.Client, ids: readonly number[]) {
  const { rows } = await sql.query("SELECT * FROM notes WHERE id = ANY ($1) ORDER BY id", [ids]);
  return rows;
}

/** What a consumer that keeps rows holds of these ids, after all that the sources gave. */
function held(sources: readonly OpenSource[], ids: readonly number[]) {
  const changes = sources.flatMap((source) => source.changes);
  const rows = [...replay(changes, "public.notes").values()];
  return rows.filter(({ id }) => ids.includes(id as number)).sort((a, b) => Number(a.id) - Number(b.id));
}

const reads = (source: OpenSource) => source.changes.map(parsed).filter(({ op }) => op === "r");

/** Waits until all that was asked for is off the record again. */
const settled = (rereads: MemoryRereads) =>
  eventually(() => rereads.writes.length > 0 && rereads.tables.size === 0, { what: "the requests' end" });

/** A transaction that is open: rows are not read while it is (rule 25). */
async function openTransaction(url: string) {
  const other = await superuser(url);
  await other.query("BEGIN; SELECT pg_current_xact_id()");
  return async () => {
    await other.query("COMMIT");
    await other.end();
  };
}

eachPostgres("a row asked for again", (server) => {
  test("a key change that leaves a large value: the row follows whole, and the create lists what it lacks", async () => {
    const { sql, rereads, open } = await scene(server());
    const source = await open();
    await sql.query("UPDATE notes SET id = 100 WHERE id = 1");
    await eventually(() => reads(source).length === 1, { what: "the row" });
    const [removed, created, read] = source.changes.map(parsed);
    expect(removed).toMatchObject({ op: "d", before: { id: 1 } });
    expect(created).toMatchObject({ op: "c", after: { id: 100, short: "n1" }, unchanged: ["note"] });
    expect(read?.after).toEqual((await rowsOf(sql, [100]))[0]);
    expect(read?.unchanged).toBeUndefined();
    expect(source.changes).toHaveLength(3);
    inOrder(source.changes);
    await settled(rereads);
    await source.close();
    await sql.end();
  });

  test("later changes before it is read: another key, another value, the same key anew, no row any more", async () => {
    const { url, sql, rereads, open } = await scene(server());
    const source = await open();
    const commit = await openTransaction(url);
    for (const [from, to] of [
      [1, 101],
      [101, 102],
      [2, 201],
      [3, 301],
      [4, 401],
      [401, 402],
      [5, 401],
    ])
      await sql.query("UPDATE notes SET id = $2 WHERE id = $1", [from, to]);
    await sql.query(
      "UPDATE notes SET note = repeat('é', 2000) WHERE id = 201; DELETE FROM notes WHERE id = 301",
    );
    await source.until(16);
    expect(reads(source)).toEqual([]);
    await commit();
    await eventually(() => reads(source).length >= 4, { what: "the rows" });
    await settled(rereads);
    const ids = [101, 102, 201, 301, 401, 402];
    expect(held([source], ids)).toEqual(await rowsOf(sql, ids));
    expect(reads(source).map(({ after }) => after?.id)).toEqual([102, 201, 401, 402]);
    inOrder(source.changes);
    await source.close();
    await sql.end();
  });

  test("the slot is not confirmed beyond a request that is not on record: the next task meets the change again", async () => {
    const { sql, record, rereads, open } = await scene(server());
    let write = () => {};
    const first = await open();
    rereads.gate = new Promise((resolve) => {
      write = resolve;
    });
    await sql.query("UPDATE notes SET id = 100 WHERE id = 1");
    await sql.query("INSERT INTO notes VALUES (200, 'behind', '')");
    await eventually(() => reads(first).length === 1, { what: "the row" });
    const { lsn } = (await sql.query("SELECT pg_current_wal_lsn() - '0/0' AS lsn")).rows[0];
    rereads.failure = new Error("the state table is away");
    write();
    expect(await first.failure()).toBe(rereads.failure);
    await first.close();
    expect(record.state?.confirmedLsn).toBeLessThan(BigInt(lsn));
    rereads.failure = undefined;
    const second = await open();
    await eventually(() => reads(second).length === 1, { what: "the row again" });
    expect(second.changes.map(parsed).slice(0, 2)).toMatchObject([
      { op: "d", before: { id: 1 } },
      { op: "c", after: { id: 100 } },
    ]);
    await eventually(() => (record.state?.confirmedLsn ?? 0n) >= BigInt(lsn), { what: "the confirmation" });
    await second.close();
    await sql.end();
  });

  test("a task that ends before the row is read, or before it is acknowledged: the next one reads it", async () => {
    const { url, sql, rereads, open } = await scene(server());
    const first = await open();
    const commit = await openTransaction(url);
    await sql.query("UPDATE notes SET id = 100 WHERE id = 1");
    await sql.query("UPDATE notes SET id = 101 WHERE id = 2");
    await first.until(4);
    await first.close();
    expect(rereads.tables.get("public.notes")?.rows.map(({ key }) => key)).toEqual([
      { id: "100" },
      { id: "101" },
    ]);
    // While nobody reads the log.
    await sql.query("UPDATE notes SET id = 102 WHERE id = 101");
    const taken = rereads.writes.length;
    const second = await open();
    // Under the second task's lease: what the first one still removes comes too late.
    expect(rereads.writes[taken]?.rows).toHaveLength(2);
    await second.until(2);
    second.acknowledging = false;
    await commit();
    await eventually(() => reads(second).length === 2, { what: "the rows" });
    await second.close();
    expect(rereads.tables.size).toBe(1);
    const third = await open();
    await settled(rereads);
    expect(reads(third).map(({ after }) => after?.id)).toEqual([100, 102]);
    await third.close();
    const ids = [100, 101, 102];
    expect(held([first, second, third], ids)).toEqual(await rowsOf(sql, ids));
    await sql.end();
  });

  test("a key of several columns, with names and values that must be quoted", async () => {
    const { sql, rereads, open } = await scene(
      server(),
      `CREATE TABLE "Odd.Notes" (note text, "na""me" text COLLATE "C", at timestamptz, "the id" numeric,
         PRIMARY KEY ("the id", "na""me", at));
       ALTER TABLE "Odd.Notes" ALTER note SET STORAGE EXTERNAL;
       INSERT INTO "Odd.Notes" VALUES
         (repeat('x', 3000), 'it''s "e" \\t', '2026-01-01 00:00:00.123456+00', 1.50), (repeat('y', 3000), 'é', 'infinity', 2)`,
    );
    const source = await open();
    await sql.query(`UPDATE "Odd.Notes" SET "the id" = "the id" + 1, "na""me" = "na""me" || E''';--\\\\'`);
    await eventually(() => reads(source).length === 2, { what: "the rows" });
    const read = reads(source).map(({ after }) => `${after?.["the id"]} ${String(after?.note).slice(-1)}`);
    expect(read.sort()).toEqual(["2.50 x", "3 y"]);
    await settled(rereads);
    await source.close();
    await sql.end();
  });

  test("more rows than are named: the table is backfilled, also where snapshots are never taken", async () => {
    const { sql, rereads, backfills, open } = await scene(server(), table(2500));
    const source = await open();
    // One that began before counts for nothing.
    await backfills.request("public.notes", { sweep: false, requestedAt: 0 });
    await ended(backfills, "public.notes", source);
    await sql.query("UPDATE notes SET id = -id");
    await eventually(() => rereads.writes.some(({ whole }) => whole !== undefined), { what: "the table" });
    expect(rereads.writes.every(({ rows }) => rows.length <= 1000)).toBe(true);
    await settled(rereads);
    expect(backfills.of("public.notes")).toMatchObject({ run: 2, status: "done", request: { sweep: false } });
    const ids = Array.from({ length: 2500 }, (_, i) => -1 - i);
    expect(held([source], ids)).toEqual(await rowsOf(sql, ids));
    inOrder(source.changes);
    await source.close();
    await sql.end();
  });

  test("a table that is being backfilled: rows whose keys change onto ones that were read already", async () => {
    const { url, sql, rereads, backfills, open } = await scene(server(), table(400));
    const source = await open({
      pipeline: definition(url, { snapshot: "never", backfill: { rowsPerSecond: 100 } }),
      backfill: { record: backfills, rereads, pollMs: 20, goal: { ms: 1_000, bytes: 30_000, firstRows: 20 } },
    });
    await backfills.request("public.notes", { sweep: false, requestedAt: 0 });
    await source.until(60);
    await sql.query("UPDATE notes SET id = -id WHERE id > 380");
    await sql.query("UPDATE notes SET short = short || '!' WHERE id < 0");
    const moved = () => reads(source).filter(({ after }) => Number(after?.id) < 0);
    await eventually(() => moved().length >= 20, { what: "the rows" });
    expect(backfills.of("public.notes").status).toBe("running");
    await sql.query("UPDATE notes SET id = id - 1000 WHERE id BETWEEN 1 AND 300 AND id % 3 = 0");
    const over = () => backfills.of("public.notes").status === "done" && rereads.tables.size === 0;
    await eventually(over, { what: "both to end" });
    const ids = Array.from({ length: 2000 }, (_, i) => i - 1000);
    expect(held([source], ids)).toEqual(await rowsOf(sql, ids));
    inOrder(source.changes);
    await source.close();
    await sql.end();
  });

  test("a row that the stream cannot take does not keep the others, and stays on record", async () => {
    const { sql, rereads, backfills, open } = await scene(server());
    const source = await open({
      backfill: { record: backfills, rereads, pollMs: 50, maxEventBytes: 10_000 },
    });
    await sql.query("INSERT INTO notes VALUES (60, 'too large', repeat('x', 20000))");
    await sql.query("UPDATE notes SET id = id + 100");
    await eventually(() => reads(source).length >= 50, { what: "the others" });
    await eventually(() => source.log.lines.some((line) => line.includes("cannot be given again")), {
      what: "the log to name it",
    });
    await eventually(() => rereads.tables.get("public.notes")?.rows.length === 1, { what: "one to be left" });
    expect(rereads.tables.get("public.notes")?.rows[0]?.key).toEqual({ id: "160" });
    expect(source.error).toBeUndefined();
    await source.close();
    const next = await open();
    await eventually(() => reads(next).length === 1, { what: "the row, where it fits" });
    await next.close();
    await sql.end();
  });

  test("another name of the key's column by the time that rows are read: the whole table", async () => {
    const { url, sql, rereads, backfills, open } = await scene(server());
    const source = await open();
    const commit = await openTransaction(url);
    await sql.query("UPDATE notes SET id = 100 WHERE id = 1");
    await source.until(2);
    await source.close();
    await sql.query("ALTER TABLE notes RENAME id TO number");
    await commit();
    const next = await open();
    await ended(backfills, "public.notes", next);
    await eventually(() => rereads.tables.size === 0, { what: "the request's end" });
    const { rows } = await sql.query("SELECT * FROM notes WHERE number = 100");
    expect(reads(next).find(({ after }) => after?.number === 100)?.after).toEqual(rows[0]);
    await next.close();
    await sql.end();
  });

  test("another primary key by then, which nobody has accepted: the rows stay on record", async () => {
    const { url, sql, rereads, open } = await scene(
      server(),
      table(50).replace(
        "id int PRIMARY KEY, short text, note text",
        "id int, short text, note text, PRIMARY KEY (id, short)",
      ),
    );
    const source = await open();
    const commit = await openTransaction(url);
    await sql.query("UPDATE notes SET id = id + 100");
    await source.until(100);
    await source.close();
    await sql.query("ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (id)");
    await commit();
    const next = await open();
    const told = () => next.log.lines.filter((line) => line.includes("public.notes are not read again now"));
    await eventually(() => told().length > 0, { what: "the log to tell" });
    expect(reads(next)).toEqual([]);
    await next.close();
    expect(told()).toHaveLength(1);
    expect(next.error).toBeUndefined();
    expect(rereads.tables.get("public.notes")?.rows).toHaveLength(50);
    await sql.end();
  });

  test("a row that comes into the publication's filter by an update", async () => {
    const { url, sql, rereads, open } = await scene(
      server(),
      `CREATE TABLE notes (id int, shown int, note text, PRIMARY KEY (id, shown));
       ALTER TABLE notes ALTER note SET STORAGE EXTERNAL;
       INSERT INTO notes VALUES (1, 0, repeat('x', 3000))`,
    );
    const source = await open({
      pipeline: definition(url, { snapshot: "never", where: { "public.notes": "shown > 0" } }),
    });
    await sql.query("UPDATE notes SET shown = 1 WHERE id = 1");
    await eventually(() => reads(source).length === 1, { what: "the row" });
    expect(source.changes.map(parsed)[0]).toMatchObject({ op: "c", unchanged: ["note"] });
    expect(String(reads(source)[0]?.after?.note)).toHaveLength(3000);
    await settled(rereads);
    await source.close();
    await sql.end();
  });
});
