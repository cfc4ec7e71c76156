import { expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

eachPostgres("backfill of a table whose key changes its order", (server) => {
  /** Reads some chunks, pauses, changes the table, and reads the rest: with the same task, or with the next one. */
  async function changedInTheMiddle(change: string, restarted: boolean) {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE keyed (id bigint PRIMARY KEY); INSERT INTO keyed SELECT generate_series(1, 1100)",
    );
    const record = new MemoryBackfills();
    const slots = new MemoryRecord();
    const options = {
      pipeline: definition(url, { snapshot: "never", backfill: { rowsPerSecond: 500 } }),
      record: slots,
      backfill: { record, pollMs: 20, goal: { firstRows: 50, bytes: 1_000 } },
    };
    const first = await OpenSource.open(url, options);
    await record.request("public.keyed", { sweep: false, requestedAt: 0 });
    await eventually(() => (record.items.get("public.keyed")?.progress?.rows ?? 0) > 0, { what: "a chunk" });
    record.want("public.keyed", "pause");
    await ended(record, "public.keyed", first, "paused");
    const rowsBefore = record.of("public.keyed").progress?.rows;
    expect(rowsBefore).toBeLessThan(1100);
    const { rows: publications } = await sql.query("SELECT quote_ident(pubname) AS name FROM pg_publication");
    await sql.query(change.replace("PUBLICATION_NAME", publications[0].name));
    if (restarted) await first.close();
    const second = restarted ? await OpenSource.open(url, options) : first;
    record.want("public.keyed", "run");
    const end = await ended(record, "public.keyed", second).catch((error: Error) => error);
    if (!restarted) await first.close();
    else await second.close();
    await sql.end();
    const changes = second === first ? first.changes : [...first.changes, ...second.changes];
    return { end: String(end), rows: rowsBefore, read: replay(changes, "public.keyed").size };
  }

  test("another type of the same column: numbers as text stand elsewhere, in the table and among partitions", async () => {
    const { end, rows, read } = await changedInTheMiddle("ALTER TABLE keyed ALTER COLUMN id TYPE text", true);
    expect(end).toMatch(/the key of public\.keyed was \(id: type OID 20\) and is \(id: type OID 25\) now/);
    expect(read).toBe(rows);
  });

  test("another table of the same name: none of its rows is read on from where the other stood", async () => {
    const { end, rows, read } = await changedInTheMiddle(
      "BEGIN; ALTER TABLE keyed RENAME TO gone; CREATE TABLE keyed (id bigint PRIMARY KEY); INSERT INTO keyed SELECT generate_series(-5, 1); ALTER PUBLICATION PUBLICATION_NAME ADD TABLE keyed; COMMIT",
      false,
    );
    expect(end).toMatch(/public\.keyed is another table now/);
    expect(read).toBe(rows);
  });
});
