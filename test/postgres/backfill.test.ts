import { expect, test } from "vitest";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

eachPostgres("backfill", (server) => {
  test("rows that are there come as r events, once, with the mark of their end", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders SELECT i, 'n\t' || i FROM generate_series(1, 5000) i",
    );
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url),
      record: new MemoryRecord(),
      backfill: { record, pollMs: 50 },
    });
    await ended(record, "public.orders", source);
    const events = source.changes.map(parsed);
    inOrder(source.changes);
    expect(events.filter(({ op }) => op === "r").map(({ after }) => after)).toEqual(
      Array.from({ length: 5000 }, (_, i) => ({ id: String(i + 1), note: `n\t${i + 1}` })),
    );
    expect(events.at(-1)).toMatchObject({ op: "m", message: { prefix: "tributary.backfill-end" } });
    expect(record.of("public.orders").progress).toMatchObject({ rows: 5000, lastKey: ["5000"] });
    await source.close();
    await sql.end();
  });
});
