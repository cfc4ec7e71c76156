import type pg from "pg";
import { expect, test, vi } from "vitest";
import { ChangeWindow } from "../../lib/source/postgres/backfill/change-window.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, replay } from "./backfill-replay.ts";
import { contradictions, ROWS, SETUP, workload } from "./backfill-workload.ts";
import { MemoryRereads } from "./reread-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

async function backfillUnderLoad(server: Parameters<typeof freshDatabase>[0], seed: number, identity = "") {
  const url = await freshDatabase(server);
  const sql: pg.Client = await superuser(url);
  await sql.query(SETUP);
  await sql.query(identity);
  const record = new MemoryBackfills();
  const rereads = new MemoryRereads();
  const slot = new MemoryRecord();
  const stop = new AbortController();
  const sessions = [1, 2, 3].map((i) => workload(url, seed * 1000 + i, stop.signal));
  const source = await OpenSource.open(url, {
    pipeline: definition(url),
    record: slot,
    backfill: { record, rereads, pollMs: 20, goal: { ms: 10, bytes: 20_000, firstRows: 5 } },
  });
  await ended(record, "public.load", source);
  stop.abort();
  await Promise.all(sessions);
  await sql.query("INSERT INTO load VALUES (1000000, 0, 'last', '')");
  await eventually(() => source.changes.some((change) => change.json.includes('"id":"1000000"')), {
    what: "the last change",
  });
  const { rows } = await sql.query("SELECT id::text AS id, version::text AS version, short, long FROM load");
  const whole = () =>
    [...replay(source.changes, "public.load").values()].every((row) => row.long !== undefined);
  await eventually(whole, { what: "the rows that are read again", deadlineMs: 20_000 });
  await source.close();
  await sql.end();
  inOrder(source.changes);
  const held = replay(source.changes, "public.load");
  return { source, record, rows, held, ...contradictions(source.changes) };
}

eachPostgres("backfill under load", (server) => {
  for (const [seed, identity] of [
    [1, ""],
    [2, "ALTER TABLE load REPLICA IDENTITY FULL"],
  ] as const) {
    test(`what a consumer holds is the table${identity ? ", with identity full" : ""}`, async () => {
      const { rows, held, told, wrong, record } = await backfillUnderLoad(server(), seed, identity);
      expect(wrong).toEqual([]);
      expect(told).toBeGreaterThan(ROWS / 4);
      expect(record.of("public.load").progress?.chunk).toBeGreaterThan(10);
      expect([...held.values()].sort((a, b) => Number(a.id) - Number(b.id))).toEqual(
        rows.sort((a, b) => Number(a.id) - Number(b.id)),
      );
    });
  }

  test("without the window an older row would stand over a newer change", async () => {
    const spy = vi.spyOn(ChangeWindow.prototype, "verdict").mockReturnValue(undefined);
    try {
      let wrong: readonly string[] = [];
      for (let seed = 3; wrong.length === 0 && seed < 8; seed++)
        ({ wrong } = await backfillUnderLoad(server(), seed));
      expect(wrong).not.toEqual([]);
    } finally {
      spy.mockRestore();
    }
  });
});
