import type pg from "pg";
import { expect, test } from "vitest";
import { polling } from "../../lib/definition/pipeline.ts";
import type { Query } from "../../lib/source/batch/batch-reader.ts";
import type { RowChange } from "../../lib/source/batch/row-messages.ts";
import type { PollingSource } from "../../lib/source/polling/definition.ts";
import { polledTables } from "../../lib/source/polling/polled-table.ts";
import { PollingReader } from "../../lib/source/polling/polling-reader.ts";
import { readRelations, readTables } from "../../lib/source/postgres/preflight/table-facts.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { changesOf, decodeAll, decoderOver, eventOf, openPinned, SlotReader } from "./slot-reader.ts";
import { inOrder, superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";
import { SAMPLES } from "./type-samples.ts";

function pipelineOf(source: Partial<Parameters<typeof polling>[0]> = {}) {
  return definitionOf(polling({ tables: ["public.*"], intervalMs: 50, ...source }));
}

const STAMPED = `
  CREATE TABLE t (id int PRIMARY KEY, v text, updated_at timestamptz NOT NULL DEFAULT now());
  CREATE INDEX ON t (updated_at, id)`;

/** Reads as people do at first: by the column alone, page by page, from where it was. */
class NaivePolling {
  readonly seen: string[] = [];
  #last = "-infinity";
  readonly #client: pg.Client;
  readonly #limit: number;

  constructor(client: pg.Client, limit = 1000) {
    this.#client = client;
    this.#limit = limit;
  }

  async look(): Promise<number> {
    const { rows } = await this.#client.query<{ v: string; at: string }>(
      `SELECT v, updated_at::text AS at FROM t WHERE updated_at > $1 ORDER BY updated_at LIMIT ${this.#limit}`,
      [this.#last],
    );
    for (const { v, at } of rows) {
      this.seen.push(v);
      this.#last = at;
    }
    return rows.length;
  }
}

/** The reader by itself, so that a look takes place when the test wants it. */
class Driven {
  /** Values of `v`, as they were given. */
  readonly seen: unknown[] = [];
  /** How far the server's clock is set back. */
  backMs = 0;
  readonly #client: pg.Client;
  readonly #make: () => PollingReader;
  #reader: PollingReader;
  #after: unknown = null;

  static async open(
    url: string,
    schema: string,
    source: Partial<Parameters<typeof polling>[0]> = {},
  ): Promise<Driven> {
    const admin = await superuser(url);
    await admin.query(schema);
    await admin.end();
    const client = await openPinned(url);
    const definition = pipelineOf(source).source as PollingSource;
    const facts = await readTables(client, await readRelations(client));
    const { tables } = await polledTables(client, definition, facts);
    return new Driven(client, () => new PollingReader(definition, tables, 180_000));
  }

  private constructor(client: pg.Client, make: () => PollingReader) {
    this.#client = client;
    this.#make = make;
    this.#reader = make();
  }

  /** One look, and what it gives. */
  async look(): Promise<void> {
    for (;;) {
      const plan = await this.#reader.plan(this.#query, this.#after);
      if (!plan) return;
      for await (const page of this.#reader.read(this.#query, plan.bounds))
        this.seen.push(...page.map(({ change }) => (change.op === "update" ? change.row[1] : change.op)));
      this.#after = JSON.parse(JSON.stringify(plan.after));
    }
  }

  /** Past the first looks, which take all rows. */
  async settle(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      await this.#client.query("SELECT pg_current_xact_id()");
      await this.look();
    }
  }

  /** Another process, with the same record. */
  restart(): void {
    this.#reader = this.#make();
  }

  async close(): Promise<void> {
    await this.#client.end();
  }

  readonly #query: Query = async <Row extends pg.QueryResultRow>(
    sql: string,
    values?: readonly unknown[],
  ) => {
    const { rows } = await this.#client.query<Row & { clock?: number; oldest?: number }>(sql, [
      ...(values ?? []),
    ]);
    // A message of several statements has no rows.
    return (rows ?? []).map((row) => ({
      ...row,
      ...(row.clock === undefined ? {} : { clock: row.clock - this.backMs }),
      ...(row.oldest === undefined ? {} : { oldest: row.oldest - this.backMs }),
    }));
  };
}

const values = (reading: TablesReading) => reading.events.map(({ after }) => after?.v);

eachPostgres("polling", (server) => {
  test("gives each row's values as the log gives them, of every type, as upserts", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const pinned = await openPinned(url);
    const names = Object.keys(SAMPLES).filter((name) => !name.startsWith("reg"));
    const type = (name: string) => `pg_catalog."${name}"${name === "bit" || name === "bpchar" ? "(5)" : ""}`;
    const odd = `public."Odd ""Table"".x"`;
    await client.query(`CREATE TABLE ${odd} ("Id;" int, ${names.map((name, i) => `c${i} ${type(name)}`).join(", ")},
      "Version'" bigint NOT NULL, PRIMARY KEY ("Id;"))`);
    const slot = await SlotReader.create(pinned, `FOR TABLE ${odd}`);
    const reading = await TablesReading.open(url, pipelineOf({ column: "Version'" }));
    try {
      const most = Math.max(...Object.values(SAMPLES).map((sample) => sample.values.length));
      for (let n = 0; n < most; n++) {
        const used = names.flatMap((name, i) => {
          const value = SAMPLES[name]?.values[n];
          return value === undefined ? [] : [{ i, value: name === "bit" ? value.padEnd(5, "0") : value }];
        });
        await client.query(
          `INSERT INTO ${odd} ("Id;", "Version'"${used.map(({ i }) => `, c${i}`).join("")}) VALUES (${n}, ${n}${used.map((_, k) => `, $${k + 1}`).join("")})`,
          used.map(({ value }) => value),
        );
      }
      const expected = changesOf(await decodeAll(decoderOver(pinned), await slot.take())).map(eventOf);
      await reading.until(expected.length);
      const byId = (rows: typeof expected) =>
        new Map(
          rows.map(({ after, source }) => [
            after?.["Id;"],
            { after, key: (source as { key?: unknown }).key },
          ]),
        );
      expect(byId(reading.events)).toEqual(byId(expected));
      expect(reading.events.every(({ op, before }) => op === "u" && before === null)).toBe(true);
      expect(reading.events[0]?.source).toMatchObject({ mode: "query", table: 'Odd "Table".x' });
    } finally {
      await reading.close();
      await slot.drop();
      await pinned.end();
      await client.end();
    }
  });

  test("a transaction that commits late is not missed; nor one that began long before its first write", async () => {
    const url = await freshDatabase(server());
    const [client, late, idle, other] = await Promise.all([1, 2, 3, 4].map(() => superuser(url)));
    if (!client || !late || !idle || !other) throw new Error("unreachable");
    const driven = await Driven.open(url, STAMPED, { skewSeconds: 0 });
    const naive = new NaivePolling(client);
    const look = async () => {
      await naive.look();
      await driven.look();
    };
    try {
      await driven.settle();
      // Its time is that of its begin, and nothing at the server tells of it but that it runs.
      await idle.query("BEGIN; SELECT 1");
      await late.query("BEGIN; INSERT INTO t VALUES (1, 'late')");
      await other.query("INSERT INTO t VALUES (2, 'early')");
      await look();
      // Behind the oldest that runs: nothing that a later commit could get in front of.
      expect(driven.seen).toEqual([]);
      await late.query("COMMIT");
      await look();
      expect(driven.seen.toSorted()).toEqual(["early", "late"]);
      await other.query("INSERT INTO t VALUES (3, 'later')");
      await look();
      await look();
      await idle.query("INSERT INTO t VALUES (9, 'idle first'); COMMIT");
      await look();
      await look();
      expect(driven.seen.slice(2)).toEqual(["later", "idle first"]);
      expect(naive.seen).toEqual(["early", "later"]);
    } finally {
      await driven.close();
      for (const session of [client, late, idle, other]) await session.end();
    }
  });

  test("an older transaction that updates a row after a younger one, within savepoints too, has the last word", async () => {
    const url = await freshDatabase(server());
    const [client, older, younger] = await Promise.all([1, 2, 3].map(() => superuser(url)));
    if (!client || !older || !younger) throw new Error("unreachable");
    const driven = await Driven.open(url, `${STAMPED}; INSERT INTO t VALUES (1, 'first'), (2, 'first')`, {
      skewSeconds: 0,
    });
    const naive = new NaivePolling(client);
    const look = async () => {
      await naive.look();
      await driven.look();
    };
    try {
      await driven.settle();
      await look();
      await older.query(
        "BEGIN; SELECT now(); SAVEPOINT a; INSERT INTO t VALUES (3, 'in a savepoint'); SAVEPOINT b",
      );
      await look();
      await younger.query("UPDATE t SET v = 'younger', updated_at = now()");
      await look();
      await older.query("UPDATE t SET v = 'older, later', updated_at = now(); RELEASE b; RELEASE a; COMMIT");
      await look();
      expect(driven.seen).toEqual(["first", "first", "older, later", "older, later", "older, later"]);
      expect(naive.seen).not.toContain("older, later");
    } finally {
      await driven.close();
      for (const session of [client, older, younger]) await session.end();
    }
  });

  /** Reads fifty rows in three batches, then gives the table another key. */
  async function withAnotherKey(url: string, record: MemoryReading, acknowledging: boolean) {
    const client = await superuser(url);
    try {
      await client.query(`${STAMPED}; ALTER TABLE t ADD n int NOT NULL`);
      await client.query("INSERT INTO t SELECT i, 'v' || i, now(), 51 - i FROM generate_series(1, 50) i");
      const first = await TablesReading.open(url, ANOTHER_KEY, { record, acknowledging });
      await first.until(acknowledging ? 50 : 20);
      if (acknowledging) await first.settled();
      await first.close();
      await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n)");
      return first;
    } finally {
      await client.end();
    }
  }

  const ANOTHER_KEY = pipelineOf({ batchRows: 20 });

  test("a key that is another one at a start: told with both, and no row of a batch under way is passed over", async () => {
    const url = await freshDatabase(server());
    const record = new MemoryReading();
    const first = await withAnotherKey(url, record, false);
    const second = await TablesReading.open(url, ANOTHER_KEY, { record });
    const events = await second.until(50);
    await second.settled();
    await second.close();
    expect(new Set(events.map(({ after }) => after?.id)).size, "every row").toBe(50);
    const highest =
      first.changes
        .map(({ position }) => position)
        .toSorted()
        .at(-1) ?? "";
    const behind = second.changes.filter(({ position }) => position <= highest);
    expect(behind, "at a position that a consumer may have passed").toEqual([]);
    const third = await TablesReading.open(url, ANOTHER_KEY, { record });
    const client = await superuser(url);
    await client.query("INSERT INTO t VALUES (60, 'v', now(), 60)");
    await client.end();
    await third.until(1);
    await third.close();
    const warnings = [second, third].map(
      ({ log }) => log.lines.filter((line) => line.includes("public.t was (id) and is (n)")).length,
    );
    expect(warnings, "once").toEqual([1, 0]);
  });

  test("a key that is another one at a start, between two batches of a look: the look begins anew in that table", async () => {
    const url = await freshDatabase(server());
    const record = new MemoryReading();
    await withAnotherKey(url, record, true);
    const between = record.writes.find(({ place }) => {
      const { after, batch } = place as { after: { under: { last: unknown } } | null; batch?: unknown };
      return batch === undefined && after?.under.last;
    });
    expect(between).toBeDefined();
    const second = await TablesReading.open(url, ANOTHER_KEY, { record: new MemoryReading(between) });
    const events = await second.until(50);
    await second.close();
    expect(new Set(events.map(({ after }) => after?.id)).size, "every row").toBe(50);
  });

  test("equal times across the border of a page", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(STAMPED);
    await client.query("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 25) i");
    const naive = new NaivePolling(client, 10);
    while ((await naive.look()) > 0);
    expect(naive.seen.length).toBe(10);
    const reading = await TablesReading.open(url, pipelineOf({ batchRows: 10 }));
    try {
      await reading.until(25);
      await client.query("UPDATE t SET v = 'n' || id, updated_at = now()");
      await reading.until(50);
      await reading.settled();
      expect(new Set(values(reading)).size).toBe(50);
      expect(reading.changes.length).toBe(50);
      inOrder(reading.changes);
    } finally {
      await reading.close();
      await client.end();
    }
  });

  test("an application's clock that goes backwards: seen within its skew, and what is beyond is not", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const driven = await Driven.open(url, STAMPED, { skewSeconds: 60 });
    const naive = new NaivePolling(client);
    const insert = async (id: number, age: string) => {
      await client.query(`INSERT INTO t VALUES (${id}, 'v${id}', now() - '${age}'::interval)`);
      await naive.look();
      await driven.look();
    };
    try {
      await driven.settle();
      await insert(1, "0");
      await insert(2, "30 seconds");
      await insert(3, "2 hours");
      await insert(4, "0");
      expect(driven.seen).toEqual(["v1", "v2", "v4"]);
      expect(naive.seen).toEqual(["v1", "v4"]);
      // A start looks at all rows that were changed since the last look, whatever they say.
      await client.query("INSERT INTO t VALUES (5, 'v5', now() - '3 hours'::interval)");
      driven.restart();
      await driven.look();
      expect(driven.seen).toEqual(["v1", "v2", "v4", "v5"]);
    } finally {
      await driven.close();
      await client.end();
    }
  });

  test("a server's clock that is set back is noticed", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const driven = await Driven.open(url, STAMPED);
    try {
      await client.query("INSERT INTO t VALUES (1, 'before')");
      await driven.settle();
      driven.backMs = 7_200_000;
      await client.query("INSERT INTO t VALUES (2, 'after', now() - '2 hours'::interval)");
      await driven.look();
      await client.query("INSERT INTO t VALUES (3, 'later', now() - '2 hours'::interval)");
      await driven.look();
      expect(driven.seen).toEqual(["before", "after", "later"]);
    } finally {
      await driven.close();
      await client.end();
    }
  });

  test("a batch that was recorded and not published is given again, byte by byte, but for rows that changed since", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(STAMPED);
    const pipeline = pipelineOf({ batchRows: 20 });
    const record = new MemoryReading();
    try {
      const start = await TablesReading.open(url, pipeline, { record });
      await client.query("INSERT INTO t VALUES (0, 'first')");
      await start.until(1);
      await start.settled();
      await start.close();
      await client.query("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 30) i");
      const first = await TablesReading.open(url, pipeline, { record, acknowledging: false });
      await first.until(20);
      await first.close();
      const changed = first.events[7]?.after?.id;
      const gone = first.events[3]?.after?.id;
      await client.query(
        `UPDATE t SET v = 'changed', updated_at = now() WHERE id = ${changed}; DELETE FROM t WHERE id = ${gone}`,
      );
      const second = await TablesReading.open(url, pipeline, { record });
      await second.until(18 + 10 + 1);
      await second.settled();
      const timeless = (reading: TablesReading) =>
        reading.changes.map(({ partition, position, json }) => ({
          partition,
          position,
          json: json.replace(/"ts_ms":\d+,"source"/, '"source"'),
        }));
      const kept = timeless(first).filter((_, i) => i !== 7 && i !== 3);
      expect(timeless(second).slice(0, 18)).toEqual(kept);
      expect(values(second).slice(18)).toContain("changed");
      inOrder(second.changes);
      await second.close();
    } finally {
      await client.end();
    }
  });

  test("numbers of a sequence that were drawn early, and columns that come and go", async () => {
    const url = await freshDatabase(server());
    const [client, other] = [await superuser(url), await superuser(url)];
    await client.query(
      "CREATE SEQUENCE s; CREATE TABLE t (id int PRIMARY KEY, v text, updated_at bigint NOT NULL DEFAULT nextval('s')); CREATE INDEX ON t (updated_at, id)",
    );
    const reading = await TablesReading.open(url, pipelineOf());
    try {
      // The first of 32 is written to the log, and makes its transaction one that others wait for.
      await client.query("SELECT nextval('s')");
      await other.query("BEGIN; SELECT nextval('s')");
      await client.query("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
      await reading.until(2);
      await client.query("INSERT INTO t VALUES (3, 'c')");
      await reading.until(3);
      // Its number was drawn before all of them.
      await other.query("INSERT INTO t VALUES (4, 'drawn early', 2); COMMIT");
      await reading.until(4);
      await client.query("ALTER TABLE t ADD COLUMN late numeric DEFAULT 1.50, DROP COLUMN v");
      await client.query("UPDATE t SET late = 2.500, updated_at = nextval('s') WHERE id = 1");
      const events = await reading.until(5);
      expect(events.at(-1)?.after).toMatchObject({ id: 1, late: "2.500" });
      expect(events.at(-1)?.after).not.toHaveProperty("v");
    } finally {
      await reading.close();
      await client.end();
      await other.end();
    }
  });

  test("a batch of large rows is read in pages of bounded bytes; a row that changes between two of them is left to the next look", async () => {
    const url = await freshDatabase(server());
    const client = await openPinned(url);
    try {
      await client.query(
        `CREATE TABLE public.t (tenant text, id int, v text, raw bytea, doc jsonb, updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, tenant));
         INSERT INTO public.t SELECT 'it''s', i, repeat('x', 1500000), NULL, NULL FROM generate_series(1, 6) i;
         INSERT INTO public.t SELECT 'a', i, NULL, decode(repeat('ab', 800000), 'hex'), NULL FROM generate_series(7, 12) i;
         INSERT INTO public.t SELECT 'a', i, NULL, NULL, jsonb_build_object('a', repeat('y', 1500000)) FROM generate_series(13, 18) i;
         INSERT INTO public.t SELECT 'a', i FROM generate_series(19, 60) i`,
      );
      const { source } = pipelineOf();
      const { tables } = await polledTables(
        client,
        source as PollingSource,
        await readTables(client, await readRelations(client)),
      );
      const reader = new PollingReader(source as PollingSource, tables, 180_000);
      const query: Query = async (sql, values = []) => (await client.query(sql, [...values])).rows;
      const plan = await reader.plan(query, null);
      const read = async (between: () => Promise<unknown> = async () => {}) => {
        const pages: RowChange[][] = [];
        for await (const page of reader.read(query, plan?.bounds)) {
          pages.push([...page]);
          await between();
        }
        return pages;
      };
      const pages = await read();
      const bytes = ({ change }: RowChange) => JSON.stringify(change).length;
      expect(pages.length).toBeGreaterThan(5);
      for (const page of pages) {
        const sizes = page.map(bytes);
        expect(sizes.reduce((a, b) => a + b, 0) - Math.max(...sizes)).toBeLessThan(4 * 1024 * 1024);
      }
      const places = pages.flat().map(({ commitLsn }) => commitLsn);
      expect(places).toHaveLength(60);
      expect(places).toEqual([...places].sort((a, b) => (a < b ? -1 : 1)));
      const last = pages.at(-1) as RowChange[];
      const changed = new Set<bigint>(last.map(({ commitLsn }) => commitLsn));
      const ids = last.map(({ change }) => (change.op === "update" ? change.row[1] : ""));
      const again = await read(() =>
        client.query("UPDATE public.t SET tenant = tenant WHERE id = ANY ($1::int[])", [ids]),
      );
      expect(again.flat().map(({ commitLsn }) => commitLsn)).toEqual(
        places.filter((place) => !changed.has(place)),
      );
    } finally {
      await client.end();
    }
  });

  test("a primary whose transaction ids went back stops; a replica that is behind another gives nothing yet", async () => {
    const url = await freshDatabase(server());
    const client = await openPinned(url);
    try {
      await client.query(STAMPED.replaceAll(" t ", " public.t "));
      await client.query("INSERT INTO public.t VALUES (1, 'older')");
      const { source } = pipelineOf();
      const facts = await readTables(client, await readRelations(client));
      const { tables } = await polledTables(client, source as PollingSource, facts);
      const reader = new PollingReader(source as PollingSource, tables, 180_000);
      const as =
        (standby: boolean): Query =>
        async <Row extends pg.QueryResultRow>(sql: string) => {
          const { rows } = await client.query<Row & { standby?: boolean }>(sql);
          return rows.map((row) => (row.standby === undefined ? row : { ...row, standby }));
        };
      const seen = { number: 1, from: "4000000000", low: null, lowValues: {}, marks: [] };
      const after = { ...seen, fullUntil: null, under: null };
      await expect(reader.plan(as(false), after)).rejects.toMatchObject({ code: "SERVER_BEHIND" });
      expect(await reader.plan(as(true), after)).toBeUndefined();
      // What was given stays given.
      expect(await reader.plan(as(true), { ...after, from: "3" })).toMatchObject({ bounds: { from: "3" } });
    } finally {
      await client.end();
    }
  });

  test("says all that keeps tables from being polled", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    try {
      await client.query(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, updated_at timestamptz);
        CREATE TABLE c (id int, updated_at timestamptz NOT NULL); CREATE TABLE d (id int PRIMARY KEY, updated_at text NOT NULL)`);
      await expect(TablesReading.open(url, pipelineOf())).rejects.toMatchObject({
        problems: [
          { code: "POLLING_COLUMN", message: expect.stringContaining("public.a has no column") },
          { code: "POLLING_COLUMN", message: expect.stringContaining("public.b may be null") },
          { code: "POLLING_KEY", message: expect.stringContaining("public.c") },
          { code: "POLLING_COLUMN", message: expect.stringContaining("type text") },
        ],
      });
      const name = `polls_${new URL(url).pathname.slice(1)}`;
      await client.query(
        `DROP TABLE a, b, c, d; ${STAMPED}; CREATE ROLE ${name} LOGIN PASSWORD 'x'; GRANT SELECT ON t TO ${name}`,
      );
      const as = Object.assign(new URL(url), { username: name, password: "x" }).toString();
      await expect(TablesReading.open(as, pipelineOf())).rejects.toMatchObject({
        problems: [{ code: "TRANSACTIONS", remedy: expect.stringContaining("GRANT pg_read_all_stats") }],
      });
      const slips = { columns: { "public.tt": "id" }, timeZone: "Mars/Base_One" };
      const deletes = { everySeconds: 1, tables: ["other.*"] };
      await expect(TablesReading.open(url, pipelineOf({ ...slips, deletes }))).rejects.toMatchObject({
        problems: [
          { code: "TIME_ZONE", message: expect.stringContaining("Mars/Base_One") },
          { code: "TABLE_PATTERN", message: expect.stringContaining('source.columns names "public.tt"') },
          {
            code: "TABLE_PATTERN",
            message: expect.stringContaining('source.deletes.tables names "other.*"'),
          },
        ],
      });
      await client.query("INSERT INTO t VALUES (1, 'a')");
      const reading = await TablesReading.open(as, pipelineOf({ longestTransactionSeconds: 5 }));
      await reading.until(1);
      await reading.close();
    } finally {
      await client.end();
    }
  });
});
