import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import {
  applyToReadModel,
  orders,
  readModelIdentity,
  sweepReadModel,
} from "../../functions/order-summary.ts";
import { formatPosition } from "../../lib/change/position.ts";
import { type ChangeEvent, Operation } from "../../lib/index.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "./server.ts";

const SQL = new URL("../../functions/order-summary.sql", import.meta.url);

/** An event as the library hands it to `onBatch`, as far as the sink looks at it. */
function event(at: number, operation: Operation, row: object | null, partition = 3): ChangeEvent {
  const position = formatPosition({ epoch: 1, commitLsn: BigInt(at), ordinal: 1 });
  const facts = { id: position, position, partition, committedAt: new Date(0), unchanged: [], omitted: [] };
  return { ...facts, operation, row } as unknown as ChangeEvent;
}
const order = (id: number, status: string) => ({
  id: String(id),
  customer_id: "1",
  status,
  total: "19.90",
  placed_at: "2026-11-23T10:15:30.123456Z",
  updated_at: "infinity",
});

describe("the read model of order-summary", () => {
  withPostgres((server) => {
    const pools: pg.Pool[] = [];
    let pool: pg.Pool;
    beforeEach(async () => {
      pool = new pg.Pool({ connectionString: await freshDatabase(server()) });
      pools.push(pool);
      await pool.query(await readFile(SQL, "utf8"));
    });
    afterAll(async () => {
      for (const each of pools) await each.end();
    });
    const apply = (...events: ChangeEvent[]) => applyToReadModel(pool, orders, events);
    const held = async () => {
      const { rows } = await pool.query("SELECT id, status FROM orders WHERE deleted_at IS NULL ORDER BY id");
      return rows.map((row: { id: string; status: string }) => `${row.id} ${row.status}`);
    };

    it("keeps the last state of each key within a batch and over batches, with exact values", async () => {
      await apply(
        event(1, Operation.Create, order(1, "placed")),
        event(2, Operation.Update, order(1, "paid")),
        event(3, Operation.Create, order(2, "placed")),
      );
      await apply(event(4, Operation.Update, order(2, "shipped")));
      expect(await held()).toEqual(["1 paid", "2 shipped"]);
      const { rows } = await pool.query(
        "SELECT total::text, placed_at AT TIME ZONE 'UTC' = '2026-11-23 10:15:30.123456' AS exact, updated_at::text FROM orders WHERE id = 1",
      );
      expect(rows).toEqual([{ total: "19.90", exact: true, updated_at: "infinity" }]);
    });

    it("refuses a row of which a part did not travel, instead of writing null over it", async () => {
      await apply(event(1, Operation.Create, order(1, "a long story")));
      const { status: _, ...rest } = order(1, "");
      for (const left of ["unchanged", "omitted"]) {
        const partial = { ...event(2, Operation.Update, rest), [left]: ["status"] } as ChangeEvent;
        await expect(apply(partial)).rejects.toThrow("orders: status did not travel");
      }
      expect(await held()).toEqual(["1 a long story"]);
    });

    it("does nothing for changes that come again, or late", async () => {
      const paid = event(5, Operation.Update, order(1, "paid"));
      await apply(event(1, Operation.Create, order(1, "placed")), paid);
      await apply(paid);
      await apply(event(1, Operation.Create, order(1, "placed")));
      expect(await held()).toEqual(["1 paid"]);
    });

    it("does not bring a deleted row back, until it is created anew", async () => {
      await apply(event(1, Operation.Create, order(1, "placed")));
      await apply(event(5, Operation.Delete, { id: "1" }));
      await apply(event(3, Operation.Update, order(1, "late")));
      expect(await held()).toEqual([]);
      await apply(event(6, Operation.Create, order(1, "again")));
      expect(await held()).toEqual(["1 again"]);
    });

    it("does not create a row whose deletion came first", async () => {
      await apply(event(5, Operation.Delete, { id: "1" }));
      await apply(event(3, Operation.Create, order(1, "late")));
      expect(await held()).toEqual([]);
    });

    it("truncates its own partition below its position, in its place within a batch", async () => {
      await apply(event(1, Operation.Create, order(1, "other partition"), 4));
      await apply(
        event(2, Operation.Create, order(2, "before")),
        event(5, Operation.Truncate, null),
        event(6, Operation.Create, order(3, "after")),
      );
      expect(await held()).toEqual(["1 other partition", "3 after"]);
    });

    it("keeps late changes from before a truncate away, also of rows it never had", async () => {
      await apply(event(2, Operation.Create, order(2, "before")));
      await apply(event(5, Operation.Truncate, null));
      await apply(event(3, Operation.Update, order(2, "late")), event(4, Operation.Create, order(9, "late")));
      expect(await held()).toEqual([]);
      await apply(event(4, Operation.Truncate, null));
      await apply(event(5, Operation.Truncate, null));
      expect(await held()).toEqual([]);
      await apply(event(6, Operation.Create, order(2, "new")));
      expect(await held()).toEqual(["2 new"]);
    });

    it("removes with a sweep what the backfill did not meet, and keeps late changes of it away", async () => {
      await apply(
        event(1, Operation.Create, order(1, "gone")),
        event(2, Operation.Create, order(2, "stays")),
      );
      await apply(event(1, Operation.Create, order(3, "other partition"), 4));
      await apply(event(5, Operation.Read, order(2, "read")), event(6, Operation.Create, order(4, "new")));
      const { position: before } = event(4, Operation.Truncate, null);
      await sweepReadModel(pool, orders, { partition: 3, before });
      expect(await held()).toEqual(["2 read", "3 other partition", "4 new"]);
      await apply(event(3, Operation.Update, order(1, "late")));
      expect(await held()).toEqual(["2 read", "3 other partition", "4 new"]);
    });

    it("has another identity once a table of it was made anew", async () => {
      const before = await readModelIdentity(pool);
      await apply(event(1, Operation.Create, order(1, "placed")));
      expect(await readModelIdentity(pool)).toEqual(before);
      await pool.query("DROP TABLE orders, order_items, truncated CASCADE");
      await pool.query(await readFile(SQL, "utf8"));
      expect(await readModelIdentity(pool)).not.toEqual(before);
    });

    it("lets no write slip past a truncate: one that is not committed yet is waited for", async () => {
      const late = await pool.connect();
      await late.query("BEGIN");
      await late.query("INSERT INTO orders (id, topic_partition, position) VALUES (1, 3, $1)", [
        event(2, Operation.Truncate, null).position,
      ]);
      let done = false;
      const truncated = apply(event(5, Operation.Truncate, null)).then(() => {
        done = true;
      });
      await eventually(
        async () => done || (await pool.query("SELECT FROM pg_locks WHERE NOT granted")).rows.length > 0,
        { what: "the truncate to wait, or to be done" },
      );
      await late.query("COMMIT");
      late.release();
      await truncated;
      expect(await held()).toEqual([]);
    });
  });
});
