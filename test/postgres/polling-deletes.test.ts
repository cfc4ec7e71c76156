import type pg from "pg";
import { expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { polling } from "../../lib/definition/pipeline.ts";
import type { Query } from "../../lib/source/batch/batch-reader.ts";
import type { PollingSource } from "../../lib/source/polling/definition.ts";
import { type GoneRows, KeyComparison } from "../../lib/source/polling/key-comparison.ts";
import { KnownKeys } from "../../lib/source/polling/known-keys.ts";
import { polledTables } from "../../lib/source/polling/polled-table.ts";
import { readRelations, readTables } from "../../lib/source/postgres/preflight/table-facts.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { openPinned } from "./slot-reader.ts";
import { inOrder, superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";

const TABLE = `
  CREATE TABLE t (tenant text, id numeric, flag bool, v text, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, tenant, flag));
  CREATE INDEX ON t (updated_at, id, tenant, flag)`;

function pipelineOf(more: Partial<Parameters<typeof polling>[0]> = {}, topics = {}) {
  const deletes = { everySeconds: 1 };
  return definitionOf(polling({ tables: ["public.*"], intervalMs: 50, deletes, ...more }), { topics });
}

/** Rows as a sink holds them that follows the events. */
function followed(events: readonly ChangeEventJson[]): string[] {
  const rows = new Map<string, unknown>();
  for (const { op, before, after } of events) {
    const { tenant, id, flag } = (op === "d" ? before : after) as Record<string, unknown>;
    if (op === "d") rows.delete(JSON.stringify([tenant, id, flag]));
    else rows.set(JSON.stringify([tenant, id, flag]), after?.v);
  }
  return [...rows].map(([key, v]) => `${key} ${v}`).sort();
}

async function held(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ key: string; v: string }>(
    "SELECT json_build_array(tenant, id::text, flag)::text AS key, v FROM t",
  );
  return rows.map(({ key, v }) => `${JSON.stringify(JSON.parse(key))} ${v}`).sort();
}

/** What a replay must have in common with what it replays. */
function timeless(reading: TablesReading): unknown[] {
  return reading.changes.map(({ partition, position, json }) => ({
    ...{ partition, position },
    json: json.replace(/"ts_ms":\d+,"source"/, '"source"'),
  }));
}

eachPostgres("polling that looks for deletes", (server) => {
  test("a key that is another one at a start: no value of the old key is taken for one of the new", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())",
    );
    await client.query("INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 20) i");
    const record = new MemoryReading();
    const pipeline = pipelineOf({}, { keys: {} });
    try {
      const first = await TablesReading.open(url, pipeline, { record });
      await first.until(20);
      await first.settled();
      await first.close();
      await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n)");
      const second = await TablesReading.open(url, pipeline, { record });
      const known = () => [...record.parts.values()].flatMap(({ keys }) => keys.map(([n]) => Number(n)));
      await eventually(() => Math.min(...known()) === 11 && known().length === 20, {
        what: "the keys of all rows, known anew",
      });
      await client.query("DELETE FROM t WHERE n = 15");
      const deletes = () => second.events.filter(({ op }) => op === "d").map(({ before }) => before);
      await eventually(() => deletes().length > 0, { what: "the delete" });
      await second.settled();
      await second.close();
      expect(deletes(), "row 15 of the old key is there, row 15 of the new one is gone").toEqual([{ n: 15 }]);
      expect(
        second.log.lines.filter((line) =>
          line.includes("deletes of rows that are gone by now may be missing"),
        ),
      ).toHaveLength(1);
    } finally {
      await client.end();
    }
  });

  test("finds deletes, truncates and old keys; rows that were inserted again stay", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(TABLE);
    await client.query(
      "INSERT INTO t SELECT 'ünï ' || i % 3, i, i % 2 = 0, 'v' FROM generate_series(1, 60) i; INSERT INTO t VALUES ('odd '' \" , \\', 1.50, true, 'v')",
    );
    const reading = await TablesReading.open(url, pipelineOf({ batchRows: 7 }));
    const equal = async () => {
      if (reading.error) throw reading.error;
      expect(followed(reading.events)).toEqual(await held(client));
      return true;
    };
    const same = (what: string) =>
      eventually(() => equal().catch((error) => (reading.error ? Promise.reject(error) : false)), {
        what,
        deadlineMs: 20_000,
      });
    try {
      await same("all rows");
      await client.query("DELETE FROM t WHERE id BETWEEN 5 AND 30 OR id = 1.5");
      await same("no deleted rows");
      const gone = reading.events.find(({ op }) => op === "d");
      expect(gone).toMatchObject({ after: null, source: { mode: "query", key: ["tenant", "id", "flag"] } });
      expect(Object.keys(gone?.before ?? {}).sort()).toEqual(["flag", "id", "tenant"]);
      // Given, deleted, and inserted again, all between two comparisons.
      await client.query(
        "DELETE FROM t WHERE id = 40; INSERT INTO t VALUES ('ünï 1', 40, true, 'again'), ('ünï 1', 7, false, 'again')",
      );
      await client.query(
        "UPDATE t SET id = id + 1000, updated_at = clock_timestamp() WHERE id BETWEEN 50 AND 55",
      );
      await same("new keys alone");
      await client.query("TRUNCATE t; INSERT INTO t VALUES ('a', 1, true, 'new')");
      await same("the row after the truncate");
      inOrder(reading.changes);
      const places = (op: string) =>
        reading.changes.filter((_, i) => reading.events[i]?.op === op).map(({ partition }) => partition);
      expect(new Set(places("u"))).toEqual(new Set([...places("u"), ...places("d")]));
    } finally {
      await reading.close();
      await client.end();
    }
  });

  test("a row that is given and deleted before the next comparison is found, after a crash too; a replay is identical", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(TABLE);
    const record = new MemoryReading();
    const pipeline = pipelineOf({ deletes: { everySeconds: 604_800 } });
    try {
      await client.query("INSERT INTO t SELECT 'a', i, true, 'v' FROM generate_series(1, 20) i");
      const first = await TablesReading.open(url, pipeline, { record });
      await first.until(20);
      await client.query("INSERT INTO t VALUES ('a', 21, true, 'short')");
      await first.until(21);
      await first.settled();
      await first.close();
      // While nobody looks.
      await client.query("DELETE FROM t WHERE id > 10");
      const second = await TablesReading.open(url, pipeline, { record, acknowledging: false });
      await second.until(11);
      await second.close();
      // Of what was recorded and not published one is there again: that comes behind.
      await client.query("INSERT INTO t VALUES ('a', 15, true, 'again')");
      const third = await TablesReading.open(url, pipeline, { record });
      await third.until(12);
      await third.settled();
      expect(timeless(third).slice(0, 11)).toEqual(timeless(second));
      expect(third.events.slice(0, 11).map(({ op }) => op)).toEqual(Array(11).fill("d"));
      expect(third.events[11]).toMatchObject({ op: "u", after: { id: "15", v: "again" } });
      inOrder(third.changes);
      await third.close();
      // Nothing is found twice. Deleted before the start: the comparison after that one is a week off.
      await client.query("DELETE FROM t WHERE id = 15; INSERT INTO t VALUES ('a', 99, true, 'last')");
      const fourth = await TablesReading.open(url, pipeline, { record });
      await fourth.until(2);
      await fourth.settled();
      await fourth.close();
      expect(fourth.events.map(({ op, before, after }) => `${op} ${(after ?? before)?.id}`).sort()).toEqual([
        "d 15",
        "u 99",
      ]);
      const keys = [...record.parts.values()].flatMap((part) => part.keys.map(([id]) => Number(id)));
      expect(keys.sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99]);
    } finally {
      await client.end();
    }
  });

  test("asks once more before it tells of a delete, tells it until it was acknowledged, and not on a server that is behind", async () => {
    const url = await freshDatabase(server());
    const client = await openPinned(url);
    try {
      await client.query("CREATE TABLE public.t (id int PRIMARY KEY, updated_at timestamptz NOT NULL)");
      const query: Query = async (sql) => (await client.query(sql)).rows;
      const { source } = pipelineOf();
      const facts = await readTables(client, await readRelations(client));
      const { tables } = await polledTables(client, source as PollingSource, facts);
      const known = new KnownKeys(new MemoryReading().keys);
      await known.load(true);
      await known.add(
        "public.t",
        Array.from({ length: 1500 }, (_, i) => [String(i)]),
      );
      const comparison = new KeyComparison(known, tables, 3600);
      expect(await comparison.next(query, "4000000000")).toBeUndefined();
      const first = await comparison.next(query, "3");
      expect(first?.keys).toHaveLength(1000);
      // Nobody says that it was given: its batch could not be recorded.
      expect(await comparison.next(query, "3")).toEqual(first);
      // All that is left is there again, but for one.
      await client.query(
        "INSERT INTO public.t SELECT i, now() FROM generate_series(0, 1499) i WHERE i <> 1207 AND i <> ALL ($1::int[])",
        [first?.keys.map(([id]) => Number(id))],
      );
      await comparison.given(first as GoneRows);
      const rest = { table: "public.t", keys: [["1207"]] };
      expect(await comparison.next(query, "3")).toEqual(rest);
      await comparison.given(rest);
      expect(await comparison.next(query, "3")).toBeUndefined();
    } finally {
      await client.end();
    }
  });

  test("a table whose partition is chosen by another column is refused", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    try {
      await client.query(
        `CREATE TABLE o (id int PRIMARY KEY, customer int NOT NULL, updated_at timestamptz NOT NULL);
         CREATE TABLE other (id int PRIMARY KEY, updated_at timestamptz NOT NULL)`,
      );
      const topics = { keys: { "public.o": ["customer"] } };
      await expect(TablesReading.open(url, pipelineOf({}, topics))).rejects.toMatchObject({
        problems: [{ code: "POLLING_DELETES", message: expect.stringContaining('"customer"') }],
      });
      const none = pipelineOf({ deletes: { everySeconds: 1, tables: ["public.other"] } }, topics);
      await (await TablesReading.open(url, none)).close();
    } finally {
      await client.end();
    }
  });
});
