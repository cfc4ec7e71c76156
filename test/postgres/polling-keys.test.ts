import type pg from "pg";
import { expect, test } from "vitest";
import { polling } from "../../lib/definition/pipeline.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";

function pipelineOf(more: Partial<Parameters<typeof polling>[0]> = {}) {
  return definitionOf(polling({ tables: ["public.*"], intervalMs: 50, ...more }));
}
const DELETES = { deletes: { everySeconds: 1 } };
const told = (reading: TablesReading) =>
  reading.log.lines.filter((line) => line.includes("TABLE_KEY") || line.includes("the key of public."));
const deletesOf = (reading: TablesReading) =>
  reading.events.filter(({ op }) => op === "d").map(({ before }) => before);
const known = (record: MemoryReading, table = "public.t") =>
  [...record.parts.values()].filter((part) => part.table === table).flatMap(({ keys }) => keys);

/** Gives all rows of `t`, and ends. */
async function given(
  url: string,
  pipeline: Parameters<typeof TablesReading.open>[1],
  record: MemoryReading,
  rows: number,
) {
  const reading = await TablesReading.open(url, pipeline, { record });
  await reading.until(rows);
  await reading.settled();
  await reading.close();
}

const TWENTY = `
  CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
  INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 20) i`;
const KEY_N = "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n)";
const U_IS_ID = `
  ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t RENAME id TO old_id;
  ALTER TABLE t RENAME u TO id; ALTER TABLE t ADD PRIMARY KEY (id)`;

/** Waits for a condition, or for the end of the reading: what a test expects of its error comes after that. */
async function orFailed(reading: TablesReading, condition: () => boolean, what: string): Promise<void> {
  await eventually(() => reading.error !== undefined || condition(), { what, deadlineMs: 10_000 });
}

/** Deletes a row, and expects that its delete is the only one that the reading gives, and that it goes on. */
async function findsOneDelete(
  reading: TablesReading,
  client: pg.Client,
  where: string,
  before: Record<string, unknown>,
): Promise<void> {
  await client.query(`DELETE FROM t WHERE ${where}`);
  await orFailed(reading, () => deletesOf(reading).length > 0, "a delete");
  await reading.close();
  expect(reading.error).toBeUndefined();
  expect(deletesOf(reading)).toMatchObject([before]);
}

function highestOf(changes: TablesReading["changes"]): string {
  return (
    changes
      .map(({ position }) => position)
      .toSorted()
      .at(-1) ?? ""
  );
}

function upTo(highest: string, { changes }: TablesReading): TablesReading["changes"] {
  return changes.filter(({ position }) => position <= highest);
}

/** Makes the stored place one of a version that kept no keys. */
function forgetKeys(record: MemoryReading): void {
  if (!record.state) throw new Error("no state");
  const { keys: _keys, types: _types, ...place } = record.state.place as Record<string, unknown>;
  record.state = { ...record.state, place };
}

eachPostgres("polling of tables whose key is another one at a start", (server) => {
  /** A database of its own, and nothing stored. */
  async function prepare() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const record = new MemoryReading();
    return { url, client, record, [Symbol.asyncDispose]: () => client.end() };
  }

  test("compares nothing of the old key when deletes are looked for again, though they were not when it changed", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(TWENTY);
    await given(url, pipelineOf(DELETES), record, 20);
    await client.query(KEY_N);
    await client.query("INSERT INTO t VALUES (50, 50)");
    await given(url, pipelineOf(), record, 1);
    const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
    const anew = () => known(record).length === 21 && known(record).every((key) => Number(key[0]) > 10);
    await orFailed(third, () => deletesOf(third).length > 0 || anew(), "the keys anew");
    await findsOneDelete(third, client, "n = 15", { n: 15 });
  });

  test("compares nothing of the old key when the new one has more columns", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(TWENTY);
    await given(url, pipelineOf(DELETES), record, 20);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)");
    await client.query("INSERT INTO t VALUES (50, 50)");
    await given(url, pipelineOf(), record, 1);
    const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
    const anew = () => known(record).length === 21 && known(record).every((key) => key.length === 2);
    await orFailed(third, () => deletesOf(third).length > 0 || anew(), "the keys anew");
    await findsOneDelete(third, client, "n = 15", { n: 15 });
  });

  test.each([
    ["an older version stored no keys", true],
    ["the table came to the definition later", false],
  ])("says it and compares no old key where %s, and nothing changed before the key did", async (_, old) => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())",
    );
    await client.query(
      "CREATE TABLE a (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO a VALUES (1)",
    );
    await client.query("INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 20) i");
    if (old) {
      await given(url, pipelineOf(DELETES), record, 21);
      if (!record.state) throw new Error("no state");
      const { keys, ...place } = record.state.place as Record<string, unknown>;
      expect(keys).toBeDefined();
      record.state = { ...record.state, place };
    } else await given(url, pipelineOf({ ...DELETES, tables: ["public.a"] }), record, 1);
    const second = await TablesReading.open(url, pipelineOf(DELETES), { record });
    await eventually(() => known(record).length === 20, { what: "the keys", deadlineMs: 10_000 });
    await second.close();
    expect(second.error).toBeUndefined();
    await client.query(KEY_N);
    const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
    await orFailed(third, () => Math.min(...known(record).map(([n]) => Number(n))) === 11, "keys anew");
    await third.close();
    expect(third.error).toBeUndefined();
    expect.soft(deletesOf(third)).toEqual([]);
    expect.soft(told(third)).toHaveLength(1);
  });

  test("says it once, though a batch of another table is pending over several starts", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO t VALUES (1, 1)",
    );
    await client.query(
      "CREATE TABLE a (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO a VALUES (1)",
    );
    await given(url, pipelineOf(), record, 2);
    await client.query("UPDATE a SET updated_at = now()");
    const open = async (acknowledging: boolean) => {
      const reading = await TablesReading.open(url, pipelineOf(), { record, acknowledging });
      await reading.until(1);
      await reading.close();
      return told(reading).length;
    };
    await open(false);
    await client.query(KEY_N);
    expect([await open(false), await open(false), await open(true)]).toEqual([1, 0, 0]);
  });

  test("goes on where another column took the name of the key's", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, u uuid NOT NULL DEFAULT gen_random_uuid(), updated_at timestamptz NOT NULL DEFAULT now())",
    );
    await client.query("INSERT INTO t SELECT i FROM generate_series(1, 20) i");
    await given(url, pipelineOf(DELETES), record, 20);
    await client.query(U_IS_ID);
    for (const _ of [1, 2]) {
      const reading = await TablesReading.open(url, pipelineOf(DELETES), { record });
      await orFailed(
        reading,
        () => known(record).length === 20 && known(record).every(([id]) => id?.length === 36),
        "keys anew",
      );
      await reading.close();
      expect.soft(reading.error).toBeUndefined();
      expect.soft(deletesOf(reading)).toEqual([]);
    }
  });

  test.each(["uuid", "int"])(
    "passes over no row of a batch under way where another column, of type %s, took the name",
    async (type) => {
      await using prepared = await prepare();
      const { url, client, record } = prepared;
      await client.query(
        `CREATE TABLE t (id int PRIMARY KEY, u ${type} NOT NULL, v int, updated_at timestamptz NOT NULL DEFAULT now())`,
      );
      await client.query(
        `INSERT INTO t SELECT i, ${type === "int" ? "51 - i" : "gen_random_uuid()"}, i FROM generate_series(1, 50) i`,
      );
      const first = await TablesReading.open(url, pipelineOf({ batchRows: 20 }), {
        record,
        acknowledging: false,
      });
      await first.until(20);
      await first.close();
      await client.query(U_IS_ID);
      const second = await TablesReading.open(url, pipelineOf({ batchRows: 20 }), { record });
      await orFailed(
        second,
        () => new Set(second.events.map(({ after }) => after?.v)).size === 50,
        "all rows",
      );
      await second.close();
      expect(second.error).toBeUndefined();
      const highest = highestOf(first.changes);
      expect(upTo(highest, second)).toHaveLength(0);
    },
  );

  test("gives two rows of one old key both, at the latest after the next start, where the key changes while the task runs", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO t VALUES (1, 1)",
    );
    const first = await TablesReading.open(url, pipelineOf(), { record });
    await first.until(1);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)");
    await client.query("INSERT INTO t VALUES (1, 2), (1, 3)");
    await orFailed(first, () => first.events.length === 2, "one of the two");
    await client.query("INSERT INTO t VALUES (9, 9)");
    await orFailed(first, () => first.events.some(({ after }) => after?.id === 9), "the last");
    if (!first.error) await first.settled();
    await first.close();
    const second = await TablesReading.open(url, pipelineOf(), { record });
    await client.query("INSERT INTO t VALUES (10, 10)");
    await eventually(() => second.events.some(({ after }) => after?.id === 10), {
      what: "the last",
      deadlineMs: 10_000,
    });
    await second.close();
    const seen = [...first.events, ...second.events].map(({ after }) => `${after?.n},${after?.id}`);
    expect(new Set(seen)).toEqual(new Set(["1,1", "2,1", "3,1", "9,9", "10,10"]));
  });

  test("passes over no row and gives no position twice where the key of the table before the batch's changes, then that of the batch's", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    const pipeline = pipelineOf({ batchRows: 20, ...DELETES });
    for (const t of ["t", "z"])
      await client.query(
        `CREATE TABLE ${t} (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO ${t} SELECT i, 31 - i FROM generate_series(1, 30) i`,
      );
    const changes: TablesReading["changes"] = [];
    const run = async (until: (reading: TablesReading) => boolean, acknowledge: boolean) => {
      const reading = await TablesReading.open(url, pipeline, { record, acknowledging: acknowledge });
      await orFailed(reading, () => until(reading), "it");
      if (acknowledge) await reading.settled();
      await reading.close();
      expect(reading.error).toBeUndefined();
      return reading;
    };
    const all = await run((r) => r.events.filter(({ source }) => source.table === "z").length === 30, true);
    // The moment when z's first batch was recorded, behind t's last.
    const state = record.writes.find(({ place }) => {
      const { after, batch } = place as {
        after: { under: { tables: string[]; last: unknown } | null } | null;
        batch?: { bounds: { table?: string } };
      };
      return batch?.bounds.table === "public.z" && after?.under?.tables[0] === "public.t" && after.under.last;
    });
    expect(state).toBeDefined();
    record.state = state;
    changes.push(...all.changes.slice(0, 50));
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)");
    const second = await run((r) => r.changes.length >= 20, false);
    expect(second.changes.map(({ position }) => position)).toEqual(
      all.changes.slice(30, 50).map(({ position }) => position),
    );
    expect(told(second)).toHaveLength(1);
    await client.query("ALTER TABLE z DROP CONSTRAINT z_pkey, ADD PRIMARY KEY (n, id)");
    const third = await run(
      (r) =>
        new Set(r.events.filter(({ source }) => source.table === "z").map(({ after }) => after?.id)).size ===
        30,
      true,
    );
    expect(told(third).filter((line) => line.includes("public.z"))).toHaveLength(1);
    expect(told(third).filter((line) => line.includes("public.t"))).toHaveLength(0);
    const highest = highestOf(changes);
    expect(upTo(highest, third)).toHaveLength(0);
    expect(deletesOf(third)).toEqual([]);
  });

  test("compares nothing of the epoch before, though the new one began without deletes", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(TWENTY);
    await given(url, pipelineOf(DELETES), record, 20);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)");
    record.state = undefined;
    record.epoch = { epoch: 2 } as MemoryReading["epoch"];
    await given(url, pipelineOf(), record, 20);
    const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
    await orFailed(third, () => known(record).filter((key) => key.length === 2).length === 20, "keys");
    await findsOneDelete(third, client, "n = 15", { n: 15 });
  });

  test.each(["forget", "record", "load"])(
    "goes on at the next start after one that failed at the %s, a batch of deletes pending",
    async (at) => {
      await using prepared = await prepare();
      const { url, client, record } = prepared;
      await client.query(
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())",
      );
      await client.query("INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 600) i");
      await given(url, pipelineOf(DELETES), record, 600);
      await client.query("DELETE FROM t WHERE id <= 300");
      const first = await TablesReading.open(url, pipelineOf(DELETES), { record, acknowledging: false });
      await first.until(300);
      await first.close();
      await client.query(
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id); INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 10) i",
      );
      const { write, read } = record.keys;
      const whole = record.write.bind(record);
      let left = at === "forget" ? 1 : 0;
      const failing = () => {
        if (left-- <= 0) throw new Error("injected");
      };
      if (at === "forget")
        record.keys.write = async (part) => {
          failing();
          await write(part);
        };
      if (at === "load")
        record.keys.read = () => {
          throw new Error("injected");
        };
      if (at === "record") record.write = async () => failing();
      await expect(TablesReading.open(url, pipelineOf(DELETES), { record })).rejects.toThrow("injected");
      record.keys.write = write;
      record.keys.read = read;
      record.write = whole;
      const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
      await orFailed(third, () => known(record).length === 310 && third.changes.length >= 10, "keys");
      await findsOneDelete(third, client, "id = 400", { n: 410, id: 400 });
      expect(told(third)).toHaveLength(1);
      const highest = highestOf(first.changes);
      expect(upTo(highest, third)).toHaveLength(0);
    },
  );

  test.each([
    ["swapped", "id, n", "n, id"],
    ["less", "id, n", "n"],
    ["more", "id", "id, n"],
  ])("passes over no row of the first look where the key is %s", async (_, was, is) => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    const pipeline = pipelineOf({ batchRows: 20, ...DELETES });
    await client.query(
      `CREATE TABLE t (id int, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (${was})); INSERT INTO t SELECT i, 51 - i FROM generate_series(1, 50) i`,
    );
    const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
    await first.until(20);
    await first.close();
    await client.query(`ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (${is})`);
    const second = await TablesReading.open(url, pipeline, { record, acknowledging: false });
    await second.until(20);
    await second.close();
    await client.query(`ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (${was})`);
    const third = await TablesReading.open(url, pipeline, { record });
    await orFailed(third, () => new Set(third.events.map(({ after }) => after?.id)).size === 50, "all");
    await third.settled();
    await third.close();
    expect(third.error).toBeUndefined();
    expect(deletesOf(third)).toEqual([]);
    const highest = highestOf([...first.changes, ...second.changes]);
    expect(upTo(highest, third)).toHaveLength(0);
    expect([told(second).length, told(third).length]).toEqual([1, 1]);
  });

  test("takes a key that includes other columns, in another order than the table's, for no other key", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int, n int, v int, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (n, id) INCLUDE (v)); INSERT INTO t VALUES (1, 1, 1)",
    );
    await given(url, pipelineOf(DELETES), record, 1);
    await client.query("INSERT INTO t VALUES (2, 2, 2)");
    const second = await TablesReading.open(url, pipelineOf(DELETES), { record });
    await orFailed(second, () => second.events.length > 0, "it");
    await second.close();
    expect(second.error).toBeUndefined();
    expect(told(second)).toEqual([]);
  });

  test("reads a batch that an older version stored where it stood, and says nothing", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    const pipeline = pipelineOf({ batchRows: 20, ...DELETES });
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO t SELECT i FROM generate_series(1, 50) i",
    );
    const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
    await first.until(20);
    await first.close();
    forgetKeys(record);
    const second = await TablesReading.open(url, pipeline, { record });
    await second.until(50);
    await second.settled();
    await second.close();
    expect(second.changes.slice(0, 20).map(({ position }) => position)).toEqual(
      first.changes.map(({ position }) => position),
    );
    expect(second.changes).toHaveLength(50);
    expect(told(second)).toEqual([]);
  });

  test("goes on where an older version stored a batch, and the key has more columns by now", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    const pipeline = pipelineOf({ batchRows: 20 });
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 1, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO t SELECT i FROM generate_series(1, 50) i",
    );
    const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
    await first.until(20);
    await first.close();
    forgetKeys(record);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id)");
    const second = await TablesReading.open(url, pipeline, { record });
    await orFailed(second, () => second.changes.length >= 50, "all");
    await second.close();
    expect(second.error).toBeUndefined();
  });

  test("says it once where a table leaves the definition and comes back with another key", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now()); CREATE TABLE a (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now())",
    );
    await client.query(
      "INSERT INTO t SELECT i, i + 10 FROM generate_series(1, 20) i; INSERT INTO a VALUES (1)",
    );
    await given(url, pipelineOf(DELETES), record, 21);
    await client.query(
      "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n, id); INSERT INTO a VALUES (2)",
    );
    await given(url, pipelineOf({ ...DELETES, tables: ["public.a"] }), record, 1);
    const third = await TablesReading.open(url, pipelineOf(DELETES), { record });
    await orFailed(
      third,
      () => known(record).length === 20 && known(record).every((key) => key.length === 2),
      "keys",
    );
    await findsOneDelete(third, client, "n = 15", { n: 15 });
    expect(told(third)).toHaveLength(1);
  });

  test("passes over no row and gives no position twice where a key column is renamed", async () => {
    await using prepared = await prepare();
    const { url, client, record } = prepared;
    const pipeline = pipelineOf({ batchRows: 20, ...DELETES });
    await client.query(
      "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, updated_at timestamptz NOT NULL DEFAULT now()); INSERT INTO t (v) SELECT i FROM generate_series(1, 50) i",
    );
    const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
    await first.until(20);
    await first.close();
    await client.query("ALTER TABLE t RENAME id TO key");
    const second = await TablesReading.open(url, pipeline, { record });
    await orFailed(second, () => new Set(second.events.map(({ after }) => after?.v)).size === 50, "all");
    await second.settled();
    await second.close();
    expect(second.error).toBeUndefined();
    expect(second.changes).toHaveLength(50);
    const highest = highestOf(first.changes);
    expect(upTo(highest, second)).toHaveLength(0);
    expect(told(second)).toHaveLength(1);
  });
});
