import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { between, type SeededRandom } from "../../../local/shop/catalog.ts";
import { type Outbox, outboxMessages, outboxTable } from "../../../publish/publish.ts";
import { withClient } from "../local-parts.ts";
import type { OutboxForm } from "./pipeline.ts";

/** The application's own table: the version is the number of events that an order has committed. */
export const ORDERS_SCHEMA = "CREATE TABLE checked_orders (id int PRIMARY KEY, version int NOT NULL);";

/** Counts of the application's transactions. */
export interface OrdersWritten {
  readonly committed: number;
  readonly rolledBack: number;
}

const ROLLBACKS = 0.2;
const STEPS = [1, 4] as const;
const DAWDLE_MS = 8;

/**
 * An application: each order in one to four transactions, by several sessions at once, some rolled back. A
 * transaction raises the order's version and publishes it: so the truth is the table itself.
 */
export async function writeOrders(options: {
  readonly databaseUrl: string;
  readonly form: OutboxForm;
  readonly orders: number;
  readonly sessions: number;
  readonly random: SeededRandom;
  /** Transactions a second; default: as fast as they go. */
  readonly perSecond?: number | undefined;
  readonly onCommit: (committed: number, event: { readonly order: string; readonly version: number }) => void;
}): Promise<OrdersWritten> {
  const { databaseUrl, form, orders, sessions, random, perSecond, onCommit } = options;
  const outbox: Outbox =
    form === "message" ? outboxMessages() : outboxTable({ deleteAtOnce: form === "table" });
  const steps = Array.from({ length: orders }, (_, id) => Array(between(random, ...STEPS)).fill(id)).flat();
  shuffle(steps, random);
  let committed = 0;
  let rolledBack = 0;
  const session = async () => {
    const client = new pg.Client({ connectionString: databaseUrl });
    client.on("error", () => {});
    await client.connect();
    try {
      for (let id = steps.pop(); id !== undefined; id = steps.pop()) {
        await client.query("BEGIN");
        const { rows } = await client.query(
          `INSERT INTO checked_orders VALUES ($1, 1)
           ON CONFLICT (id) DO UPDATE SET version = checked_orders.version + 1 RETURNING version`,
          [id],
        );
        const version = Number(rows[0].version);
        await outbox.publish(client, {
          aggregateType: "order",
          aggregateId: String(id),
          type: `Version${version}`,
          payload: { version },
        });
        // Others commit meanwhile, with greater numbers.
        if (random() < 0.3) await delay(random() * DAWDLE_MS);
        if (random() < ROLLBACKS) {
          await client.query("ROLLBACK");
          rolledBack++;
        } else {
          await client.query("COMMIT");
          onCommit(++committed, { order: String(id), version });
        }
        if (perSecond) await delay((random() * 2000 * sessions) / perSecond);
      }
    } finally {
      await client.end();
    }
  };
  await Promise.all(Array.from({ length: sessions }, session));
  return { committed, rolledBack };
}

/** Versions that were committed, by order. */
export async function committedVersions(databaseUrl: string): Promise<ReadonlyMap<string, number>> {
  return withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ id: number; version: number }>("SELECT * FROM checked_orders");
    return new Map(rows.map(({ id, version }) => [String(id), version]));
  });
}

function shuffle<T>(items: T[], random: SeededRandom): void {
  for (let i = items.length - 1; i > 0; i--) {
    const j = between(random, 0, i);
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
}
