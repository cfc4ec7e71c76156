import pg from "pg";
import type { Consumer, SinkRow, VerifiableSink } from "../../../lib/index.ts";
import { Operation } from "../../../lib/index.ts";

/* A sink of `orders (id, note)` that keeps rows by position: a table `held` of the database that SINK_URL names. */

export const HELD_SCHEMA = `
  CREATE TABLE held (id text PRIMARY KEY, note text, deleted bool NOT NULL, topic_partition int NOT NULL,
    position text COLLATE "C" NOT NULL)`;

/** The consumer's handlers. */
export function holdOrders(consumer: Consumer, pool: pg.Pool): Consumer {
  const changes = [Operation.Create, Operation.Read, Operation.Update, Operation.Delete] as const;
  return consumer
    .on("public.orders", changes, async ({ row, operation, partition, position }) => {
      if (row.note === "poison") throw new Error("poison");
      await pool.query(
        `INSERT INTO held VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE
         SET (note, deleted, topic_partition, position) = (excluded.note, excluded.deleted, excluded.topic_partition, excluded.position)
         WHERE held.position < excluded.position`,
        [String(row.id), row.note ?? null, operation === Operation.Delete, partition, position],
      );
    })
    .onSweep("public.orders", async ({ partition, before }) => {
      await pool.query("DELETE FROM held WHERE topic_partition = $1 AND position < $2", [partition, before]);
    });
}

const pool = new pg.Pool({ connectionString: process.env.SINK_URL, max: 2 });
const SELECT = "SELECT id, note FROM held WHERE NOT deleted";

export const sink: VerifiableSink = {
  table: ({ table }) =>
    table === "orders"
      ? {
          async *rows() {
            yield (await pool.query<SinkRow>(SELECT)).rows;
          },
          row: async ({ id }) => (await pool.query<SinkRow>(`${SELECT} AND id = $1`, [String(id)])).rows[0],
        }
      : undefined,
  close: () => pool.end(),
};
