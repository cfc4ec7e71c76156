import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { expect, test, vi } from "vitest";
import type { WireRow } from "../../lib/change/event.ts";
import type { SourceChange } from "../../lib/source/change-source.ts";
import { ChangeWindow } from "../../lib/source/postgres/backfill/change-window.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

const ROWS = 160;
const KEYS = 240;

/** Text of PostgreSQL's own making: long enough to be stored apart from its row. */
const SETUP = `
  CREATE SEQUENCE versions;
  CREATE TABLE load (id bigint PRIMARY KEY, version bigint NOT NULL, short text, long text);
  ALTER TABLE load ALTER long SET STORAGE EXTERNAL;
  INSERT INTO load SELECT i * 3 - ${KEYS}, 0, 'n' || i, repeat(i || ' ', 800) FROM generate_series(1, ${ROWS}) i`;

/** Random transactions until it is aborted: inserts, updates that leave the long value, deletes, key changes. */
async function workload(url: string, seed: number, until: AbortSignal): Promise<void> {
  const sql = await superuser(url);
  let state = seed;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return Math.floor((state / 0x8000_0000) * below);
  };
  const key = () => random(3 * ROWS) - KEYS;
  const statement = () => {
    switch (random(6)) {
      case 0:
        return `INSERT INTO load VALUES (${key()}, nextval('versions'), 'new', repeat('${random(100)} ', 800)) ON CONFLICT DO NOTHING`;
      case 1:
        return `DELETE FROM load WHERE id = ${key()}`;
      case 2:
        return `UPDATE load SET id = ${key()}, version = nextval('versions'), long = long || 'x' WHERE id = ${key()}`;
      case 3:
        return `UPDATE load SET version = nextval('versions'), long = repeat('${random(100)} ', 900) WHERE id BETWEEN ${key()} AND ${key()} AND id % 17 = 0`;
      default:
        return `UPDATE load SET version = nextval('versions'), short = short || '!' WHERE id % 41 = ${random(41)}`;
    }
  };
  while (!until.aborted) {
    const statements = Array.from({ length: 1 + random(3) }, statement);
    const end = random(10) === 0 ? "ROLLBACK" : "COMMIT";
    await sql.query(`BEGIN; ${statements.join("; ")}; ${end}`).catch(() => sql.query("ROLLBACK"));
    await delay(random(3));
  }
  await sql.end();
}

/** What the log has told of a row must be what a backfill tells of it. Gives how many rows it told. */
function contradictions(changes: readonly SourceChange[]): { told: number; wrong: string[] } {
  const known = new Map<string, WireRow | null>();
  const wrong: string[] = [];
  let told = 0;
  for (const change of changes) {
    const { op, before, after } = parsed(change);
    const id = String((after ?? before)?.id);
    if (op === "r") {
      told++;
      const row = known.get(id);
      if (row === null) wrong.push(`${id} is deleted, and comes at ${change.position}`);
      else if (row && row.version !== after?.version)
        wrong.push(
          `${id} has version ${row.version}, and comes with ${after?.version} at ${change.position}`,
        );
      if (after?.long === undefined && row?.long === undefined)
        wrong.push(`the long value of ${id} is missing at ${change.position}`);
    }
    if (op === "d") known.set(id, null);
    else if (op !== "m") known.set(id, { ...known.get(id), ...after } as WireRow);
  }
  return { told, wrong };
}

async function backfillUnderLoad(server: Parameters<typeof freshDatabase>[0], seed: number, identity = "") {
  const url = await freshDatabase(server);
  const sql: pg.Client = await superuser(url);
  await sql.query(SETUP);
  await sql.query(identity);
  const record = new MemoryBackfills();
  const slot = new MemoryRecord();
  const stop = new AbortController();
  const sessions = [1, 2, 3].map((i) => workload(url, seed * 1000 + i, stop.signal));
  const source = await OpenSource.open(url, {
    pipeline: definition(url),
    record: slot,
    backfill: { record, pollMs: 20, goal: { ms: 10, bytes: 20_000, firstRows: 5 } },
  });
  await ended(record, "public.load", source);
  stop.abort();
  await Promise.all(sessions);
  await sql.query("INSERT INTO load VALUES (1000000, 0, 'last', '')");
  await eventually(() => source.changes.some((change) => change.json.includes('"id":"1000000"')), {
    what: "the last change",
  });
  const { rows } = await sql.query("SELECT id::text AS id, version::text AS version, short, long FROM load");
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
