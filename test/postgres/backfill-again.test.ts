import { expect, test } from "vitest";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

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
});
