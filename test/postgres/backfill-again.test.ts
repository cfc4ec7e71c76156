import { expect, test } from "vitest";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

const NOTHING = {
  ...{ startPosition: `00000001${"0".repeat(26)}`, startedAt: 1, updatedAt: 1 },
  ...{ lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0 },
};

eachPostgres("tables that are read again", (server) => {
  /** Two tables, of which each start names what it likes. */
  async function twoTables() {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'x'), (2, 'y')",
    );
    const record = new MemoryBackfills();
    const slot = new MemoryRecord();
    const open = (tables: string[]) =>
      OpenSource.open(url, {
        pipeline: definition(url, { tables }),
        record: slot,
        backfill: { record, pollMs: 20 },
      });
    return { sql, record, open };
  }

  test("a table that was asked for and not captured is read by the start that captures it", async () => {
    const { sql, record, open } = await twoTables();
    await (await open(["public.a"])).close();
    await record.request("public.b", { sweep: true, requestedAt: 1 });
    const without = await open(["public.a"]);
    await ended(record, "public.b", without, "refused");
    await without.close();
    const again = await open(["public.a", "public.b"]);
    await ended(record, "public.b", again);
    expect(replay(again.changes, "public.b").size).toBe(2);
    await again.close();
    await sql.end();
  });

  test("a table that leaves and comes back is read again with a sweep, once: what changed and what went meanwhile", async () => {
    const { sql, record, open } = await twoTables();
    const first = await open(["public.a", "public.b"]);
    await ended(record, "public.a", first);
    await ended(record, "public.b", first);
    await first.close();
    const without = await open(["public.a"]);
    await sql.query(
      "INSERT INTO b VALUES (3, 'new'); UPDATE b SET v = 'changed' WHERE id = 1; DELETE FROM b WHERE id = 2",
    );
    await without.close();
    // However often the task starts without it.
    await (await open(["public.a"])).close();
    const back = await open(["public.a", "public.b"]);
    await ended(record, "public.b", back);
    const rows = replay(back.changes, "public.b");
    expect([...rows.values()].sort((x, y) => Number(x.id) - Number(y.id))).toEqual([
      { id: 1, v: "changed" },
      { id: 3, v: "new" },
    ]);
    expect(record.of("public.b")).toMatchObject({ run: 2, request: { sweep: true }, wholeEpoch: 1 });
    expect(record.of("public.a").run).toBe(1);
    await back.close();
    await (await open(["public.a", "public.b"])).close();
    expect(record.of("public.b")).toMatchObject({ run: 2, left: undefined });
    await sql.end();
  });

  test("a table that leaves in the middle of its backfill, paused or not, begins anew when it comes back", async () => {
    for (const paused of [false, true]) {
      const { sql, record, open } = await twoTables();
      await (await open(["public.a"])).close();
      // As a task leaves it that is killed behind the first row.
      await record.request("public.b", { sweep: false, requestedAt: 1 });
      await record.write(record.of("public.b"), {
        status: paused ? "paused" : "running",
        epoch: 1,
        progress: { ...NOTHING, lastKey: ["1"], keyColumns: ["id"], chunk: 1, rows: 1 },
      });
      if (paused) record.want("public.b", "pause");
      await (await open(["public.a"])).close();
      await sql.query("UPDATE b SET v = 'changed' WHERE id = 1");
      const back = await open(["public.a", "public.b"]);
      await ended(record, "public.b", back);
      expect([...replay(back.changes, "public.b").values()]).toContainEqual({ id: 1, v: "changed" });
      expect(record.of("public.b").request.sweep).toBe(true);
      await back.close();
      await sql.end();
    }
  });
});
