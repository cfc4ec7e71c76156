import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { heldRows, orders } from "../../functions/order-summary.ts";
import { connect, connectionFromUrl, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { SourceTable } from "../../lib/verify/source-table.ts";
import { compareTable } from "../../lib/verify/verify.ts";
import { freshDatabase, withPostgres } from "./server.ts";

const SQL = new URL("../../functions/order-summary.sql", import.meta.url);
const ROWS = 12_000;

describe("a table compared with a sink", () => {
  withPostgres((server) => {
    const cleanups: (() => Promise<unknown>)[] = [];
    /** As the application, and as the command, which has another search path. */
    let source: pg.Client;
    let reader: pg.Client;
    let sink: pg.Pool;
    beforeEach(async () => {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      source = client;
      const second = await connect(connectionFromUrl(url, {}));
      reader = second;
      const pool = new pg.Pool({ connectionString: await freshDatabase(server()) });
      sink = pool;
      cleanups.push(
        () => client.end(),
        () => disconnect(second),
        () => pool.end(),
      );
      await client.query(`
        CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, status text, total numeric(12,2),
          placed_at timestamptz, updated_at timestamptz, internal text);
        CREATE PUBLICATION shop FOR TABLE orders WHERE (id > 0);
        INSERT INTO orders SELECT i, 1 + i % 7, 'placed', i / 8.0, '2026-11-23 10:15:30.123456+00'::timestamptz
          + i * interval '1 ms', CASE WHEN i % 3 = 0 THEN 'infinity'::timestamptz END, repeat('x', 20)
          FROM generate_series(1, ${ROWS}) i;
        INSERT INTO orders (id, customer_id) VALUES (0, -1)`);
      await pool.query(await readFile(SQL, "utf8"));
      const { rows } = await client.query("SELECT json_agg(o) AS all FROM orders o WHERE id > 0");
      await pool.query(
        `INSERT INTO orders (id, customer_id, status, total, placed_at, updated_at, topic_partition, position)
         SELECT id, customer_id, status, total, placed_at, updated_at, 0, ''
           FROM json_to_recordset($1) AS o(id bigint, customer_id bigint, status text, total numeric,
                placed_at timestamptz, updated_at timestamptz)`,
        [JSON.stringify(rows[0].all)],
      );
      await pool.query(
        "INSERT INTO orders (id, deleted_at, topic_partition, position) VALUES (-5, now(), 0, '')",
      );
    });
    afterAll(async () => {
      for (const cleanup of cleanups) await cleanup();
    });

    /** `pass`: what happens while the consumer is waited for, and which partitions are behind then. */
    async function compare(pass: () => Promise<number[]> = async () => [], maxRows?: number) {
      return compareTable({
        source: await SourceTable.open(reader, "shop", { schema: "public", table: "orders" }),
        sink: heldRows(sink, orders),
        pass,
        isParked: ({ id }) => id === "8",
        ...(maxRows === undefined ? {} : { maxRows }),
        signal: new AbortController().signal,
      });
    }

    it("is equal where all captured rows are: the publication's filter and the sink's columns count", async () => {
      expect(await compare()).toEqual({
        rows: { source: ROWS, sink: ROWS },
        chunks: { all: 4096, differing: 0 },
        differences: [],
        behind: [],
        undecided: 0,
        more: false,
      });
    });

    it("fails where row security hides rows from the role", async () => {
      await source.query(`
        CREATE ROLE hidden_from; GRANT SELECT ON orders TO hidden_from;
        ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON orders USING (id < 10)`);
      await reader.query("SET ROLE hidden_from");
      await expect(compare()).rejects.toThrow(/row-level security/);
      await reader.query("RESET ROLE");
      await source.query("DROP OWNED BY hidden_from; DROP ROLE hidden_from");
    });

    it("names rows that are lost, extra or different, by key and never by value", async () => {
      await sink.query("DELETE FROM orders WHERE id IN (7, 8)");
      await sink.query("UPDATE orders SET status = 'secret', total = total + 1 WHERE id = 11999");
      await sink.query("UPDATE orders SET placed_at = placed_at + interval '1 microsecond' WHERE id = 5");
      await sink.query("INSERT INTO orders (id, topic_partition, position) VALUES (20000, 0, '')");
      const found = await compare();
      expect(found.rows).toEqual({ source: ROWS, sink: ROWS - 1 });
      expect(found.chunks.differing).toBeGreaterThan(3);
      const byKey = found.differences.toSorted((a, b) => Number(a.key.id) - Number(b.key.id));
      expect(byKey).toEqual([
        { kind: "different", parked: false, key: { id: "5" }, columns: ["placed_at"] },
        { kind: "missing", parked: false, key: { id: "7" }, columns: [] },
        { kind: "missing", parked: true, key: { id: "8" }, columns: [] },
        { kind: "different", parked: false, key: { id: "11999" }, columns: ["status", "total"] },
        { kind: "extra", parked: false, key: { id: "20000" }, columns: [] },
      ]);
      expect(JSON.stringify(found)).not.toContain("secret");
    });

    it("does not call lost what arrives while the consumer is waited for", async () => {
      await sink.query("UPDATE orders SET status = 'old' WHERE id = 3");
      await source.query("DELETE FROM orders WHERE id = 4");
      const found = await compare(async () => {
        await sink.query("UPDATE orders SET status = 'placed' WHERE id = 3");
        await sink.query("UPDATE orders SET deleted_at = now() WHERE id = 4");
        return [];
      });
      expect(found).toMatchObject({ differences: [], undecided: 0, behind: [] });
      expect(found.chunks.differing).toBe(2);
    });

    it("says lag where the consumer is behind, whatever differs", async () => {
      await sink.query("DELETE FROM orders WHERE id = 7");
      expect(await compare(async () => [3, 5])).toMatchObject({
        differences: [],
        undecided: 1,
        behind: [3, 5],
      });
    });

    it("looks again at what changed meanwhile, on either side, and gives up on what never rests", async () => {
      await sink.query("UPDATE orders SET status = 'old' WHERE id IN (3, 4, 5)");
      let looks = 0;
      const found = await compare(async () => {
        looks++;
        // Once at the source, once in the sink, and one again and again.
        if (looks === 1) await source.query("UPDATE orders SET status = status WHERE id = 3");
        if (looks === 1) await sink.query("UPDATE orders SET status = 'older' WHERE id = 4");
        await source.query("UPDATE orders SET status = 'paid' WHERE id = 5");
        return [];
      });
      expect(looks).toBe(3);
      expect(found).toMatchObject({ undecided: 1, behind: [] });
      expect(found.differences.map(({ key }) => key.id)).toEqual(["3", "4"]);
    });

    it("says that it did not look at all of them", async () => {
      await sink.query("DELETE FROM orders WHERE id < 10");
      const found = await compare(undefined, 4);
      expect(found.differences).toHaveLength(4);
      expect(found.more).toBe(true);
    });

    it("holds equal what PostgreSQL prints with any settings, and what its driver makes of it", async () => {
      await source.query(`
        CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN flag AS boolean;
        CREATE TABLE every (id int PRIMARY KEY, b bytea, j jsonb, js json, s jsonb, n numeric, f float8, t timestamptz, d date,
          i interval, o flag, m moment, ints int[], texts text[], nested int[][], times timestamptz[], jsons jsonb[], bytes bytea[]);
        INSERT INTO every VALUES (1, '\\x6100', '{"a": [1, "1", null, 12345678901234567890, 1e30]}', '{"b" :1}', '"7"', 1.50,
          1e21, '2026-11-22 23:15:30.12+00', '2026-11-23', '1 year -3 days 04:05:06.5', true, '2026-01-01 00:00:00+00',
          '{1,NULL,3}', '{1,"a,b","",NULL,"NULL"}', '{{1,2},{3,4}}', '{"2026-11-22 23:15:30+00",infinity}',
          ARRAY['{"a": "x"}', '5']::jsonb[], ARRAY['\\x01']::bytea[]);
        INSERT INTO every (id) VALUES (2);
        ALTER PUBLICATION shop ADD TABLE every; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'postgres'`);
      const printed = { getTypeParser: () => (text: unknown) => text };
      const driver = {
        getTypeParser: (oid: number) => (oid === 3802 ? printed : pg.types).getTypeParser(oid),
      };
      for (const types of [printed, driver] as pg.CustomTypesConfig[]) {
        const { rows } = await source.query({ text: "SELECT * FROM every", types });
        const found = await compareTable({
          source: await SourceTable.open(reader, "shop", { schema: "public", table: "every" }),
          sink: {
            async *rows() {
              yield rows;
            },
            row: async ({ id }) => rows.find((row) => Number(row.id) === Number(id)),
          },
          pass: async () => [],
          isParked: () => false,
          signal: new AbortController().signal,
        });
        expect(found).toMatchObject({ differences: [], undecided: 0, chunks: { differing: 0 } });
      }
    });
  });
});
