import { expect, test } from "vitest";
import { polling } from "../../lib/definition/pipeline.ts";
import type { BatchReader } from "../../lib/source/batch/batch-reader.ts";
import { BatchStream } from "../../lib/source/batch/batch-stream.ts";
import type { ReadShape, RowChange } from "../../lib/source/batch/row-messages.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { inOrder, superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";

const INT4 = 23;
const TEXT = 25;
const WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pg_type'::regclass";

function ids(reading: TablesReading): unknown[] {
  return reading.events.map(({ after }) => after?.id);
}

/** A table of two columns, the second of any type; its key needs no catalog. */
function shapeOf(oid: number, table: string, type: number): ReadShape {
  const column = (name: string, of: number) => ({ name, type: of, modifier: -1, key: name === "id" });
  const columns = [column("id", INT4), column("v", type)];
  return {
    oid,
    schema: "public",
    table,
    identity: "default",
    primaryKey: ["id"],
    wholeOldRows: true,
    columns,
  };
}

function inserts(shape: ReadShape, rows: Readonly<Record<number, string>>): RowChange[] {
  return Object.entries(rows).map(([id, v]) => ({
    ...{ commitLsn: BigInt(id), lsn: BigInt(id), xid: 1, timeUs: 0n, table: shape },
    change: { op: "insert", row: [id, v] },
  }));
}

/** One batch of these pages, and nothing behind it. `before` runs before each page is given. */
class Pages implements BatchReader {
  readonly kind = "polling";
  readonly mode = "query";
  readonly #pages: readonly (readonly RowChange[])[];
  readonly #before: (pid: number) => unknown;

  constructor(pages: readonly (readonly RowChange[])[], before: (pid: number) => unknown = () => {}) {
    this.#pages = pages;
    this.#before = before;
  }

  async plan(_query: unknown, after: unknown) {
    return after === null ? { bounds: "all", after: "end" } : undefined;
  }

  async *read(query: Parameters<BatchReader["read"]>[0]) {
    const [session] = await query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    for (const page of this.#pages) {
      await this.#before(session?.pid ?? 0);
      yield page;
    }
  }
}

eachPostgres("a stream of batches", (server) => {
  async function start() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query("CREATE TYPE mood AS ENUM ('sad', 'happy')");
    const { rows } = await client.query<{ oid: number }>("SELECT 'mood'::regtype::int8::float8 AS oid");
    const open = (reader: BatchReader, record = new MemoryReading()) =>
      TablesReading.open(url, definitionOf(polling({ tables: ["public.*"] })), {
        record,
        open: (options) => BatchStream.open({ ...options, record, reader, intervalMs: 20 }),
      });
    return { url, client, open, mood: rows[0]?.oid as number };
  }

  test("gives what was decoded before a failed catalog look-up, once, however often it fails", async () => {
    const { client, open, mood } = await start();
    const [plain, moods, more] = [
      shapeOf(1, "plain", TEXT),
      shapeOf(2, "moods", mood),
      shapeOf(3, "more", mood),
    ];
    let losses = 3;
    const reader = new Pages(
      [
        inserts(plain, { 1: "a", 2: "b" }),
        [...inserts(plain, { 3: "c" }), ...inserts(moods, { 4: "sad" }), ...inserts(plain, { 5: "e" })],
        [...inserts(plain, { 6: "f" }), ...inserts(more, { 7: "happy" })],
      ],
      async (pid) => {
        if (losses-- > 0) await client.query("SELECT pg_terminate_backend($1::int, 5000)", [pid]);
      },
    );
    const reading = await open(reader);
    try {
      await reading.until(7);
      await reading.settled();
      expect(ids(reading)).toEqual([1, 2, 3, 4, 5, 6, 7]);
      inOrder(reading.changes);
      expect(losses).toBeLessThan(0);
    } finally {
      await reading.close();
      await client.end();
    }
  });

  test("gives what was decoded before a value that is none; the batch stays in the record, and comes again", async () => {
    const { client, open } = await start();
    const [plain, numbers] = [shapeOf(1, "plain", TEXT), shapeOf(2, "numbers", INT4)];
    const bad = [...inserts(plain, { 1: "a", 2: "b" }), ...inserts(numbers, { 3: "three", 4: "4" })];
    const first = await open(new Pages([bad]));
    try {
      await eventually(() => first.error, { what: "the error", deadlineMs: 20_000 });
      expect(first.error).toMatchObject({ code: "VALUE_FORMAT" });
      await first.close();
      expect(ids(first)).toEqual([1, 2]);
      expect(first.record.state).toMatchObject({ confirmedLsn: 0n, place: { batch: { after: "end" } } });
      const healed = bad.map((change) =>
        change.lsn === 3n ? (inserts(numbers, { 3: "3" })[0] as RowChange) : change,
      );
      const second = await open(new Pages([healed]), first.record);
      await second.until(4);
      await second.settled();
      await second.close();
      expect(ids(second)).toEqual([1, 2, 3, 4]);
      expect(second.changes.slice(0, 2).map(({ position }) => position)).toEqual(
        first.changes.map(({ position }) => position),
      );
    } finally {
      await client.end();
    }
  });

  test("stopped while it looks something up, gives what was decoded, and does not take the rest for given", async () => {
    const { url, client, open, mood } = await start();
    const [plain, moods] = [shapeOf(1, "plain", TEXT), shapeOf(2, "moods", mood)];
    const page = [...inserts(plain, { 1: "a", 2: "b" }), ...inserts(moods, { 3: "sad" })];
    const watcher = await superuser(url);
    try {
      // Before the lock: afterwards its own caches could not be filled.
      await watcher.query(WAITING);
      const lock = () => client.query("BEGIN; LOCK TABLE pg_catalog.pg_type IN ACCESS EXCLUSIVE MODE");
      const first = await open(new Pages([page], lock));
      await eventually(async () => (await watcher.query(WAITING)).rows.length > 0, {
        what: "the look-up",
        deadlineMs: 20_000,
      });
      const closed = first.close();
      await client.query("ROLLBACK");
      await closed;
      expect(ids(first)).toEqual([1, 2]);
      expect(first.record.state?.place).toMatchObject({ batch: { after: "end" } });
      const second = await open(new Pages([page]), first.record);
      await second.until(3);
      await second.settled();
      await second.close();
      expect(ids(second)).toEqual([1, 2, 3]);
    } finally {
      await watcher.end();
      await client.end();
    }
  });
});
