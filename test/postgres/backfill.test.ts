import { expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import type { SourceChange } from "../../lib/source/change-source.ts";
import { connectionFromUrl } from "../../lib/source/postgres/connection.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

function parsed(change: SourceChange): ChangeEventJson {
  return JSON.parse(`${change.json}}}`);
}

async function done(record: MemoryBackfills, table: string, source: OpenSource): Promise<void> {
  await eventually(
    () => {
      if (source.error) throw source.error;
      return record.of(table).status === "done";
    },
    { what: `the backfill of ${table}` },
  );
}

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
    await done(record, "public.orders", source);
    const events = source.changes.map(parsed);
    inOrder(source.changes);
    expect(events.filter(({ op }) => op === "r").map(({ after }) => after)).toEqual(
      Array.from({ length: 5000 }, (_, i) => ({ id: String(i + 1), note: `n\t${i + 1}` })),
    );
    expect(events.at(-1)).toMatchObject({ op: "m", message: { prefix: "tributary.backfill-end" } });
    expect(record.of("public.orders").progress).toMatchObject({ rows: 5000, lastKey: ["5000"] });
    await source.close();
    await sql.end();
    expect(connectionFromUrl(url)).toBeDefined();
  });
});
