import { pipeline } from "node:stream/promises";
import type pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import type { Outbox } from "../../publish/publish.ts";
import {
  between,
  inventCustomer,
  inventItems,
  inventLongNote,
  KNOWN_REASONS,
  type NewItem,
  oneOf,
  POISON_REASON,
  type SeededRandom,
  totalOf,
} from "./catalog.ts";

/** Outcome of one transaction. */
export interface TransactionOutcome {
  readonly committed: boolean;
  /** Change events that follow from it: a row change is one, an update that changes the key is two. */
  readonly changes: number;
}

interface Order {
  readonly id: string;
  status: "placed" | "paid" | "shipped" | "delivered";
  lines: number[];
}

const NEXT_STATUS = { placed: "paid", paid: "shipped", shipped: "delivered" } as const;
/** Above this a session archives old orders, so that a shop left running for days does not grow. */
const OPEN_ORDERS = 3000;
const NOTHING: TransactionOutcome = { committed: true, changes: 0 };
/** One cancellation in so many has the reason that `notifications` cannot cope with. */
const POISON_EVERY = 10;

/**
 * One connection of the shop's application: it knows its own orders and changes no others, so sessions never wait
 * for each other. Every method is one transaction; its memory follows the database only after the commit.
 */
export class ShopSession {
  readonly #client: pg.ClientBase;
  readonly #random: SeededRandom;
  /** Set: the shop publishes what happens to orders, and its events are the changes that count. */
  readonly #outbox: Outbox | undefined;
  #published = 0;
  /** Customers with orders: never deleted. */
  readonly #customers: string[] = [];
  /** Customers who have not ordered yet: may be deleted, or get another id. */
  #prospects: string[] = [];
  #orders: Order[] = [];
  #cancellations = 0;

  constructor(client: pg.ClientBase, random: SeededRandom, outbox?: Outbox) {
    this.#client = client;
    this.#random = random;
    this.#outbox = outbox;
  }

  /** True if the session has orders that it should archive. */
  get isFull(): boolean {
    return this.#orders.length > OPEN_ORDERS;
  }

  async registerCustomers(count: number): Promise<TransactionOutcome> {
    const customers = Array.from({ length: count }, () => inventCustomer(this.#random));
    const { rows } = await this.#client.query<{ id: string }>(
      "INSERT INTO customers (name, email) SELECT * FROM unnest($1::text[], $2::text[]) RETURNING id",
      [customers.map((c) => c.name), customers.map((c) => c.email)],
    );
    for (const { id } of rows) {
      if (this.#customers.length < 50) this.#customers.push(id);
      else this.#prospects.push(id);
    }
    return this.#rows(count);
  }

  async updateCustomer(): Promise<TransactionOutcome> {
    const id = this.#pick(this.#customers);
    if (id === undefined) return NOTHING;
    const kind = this.#random();
    const { rowCount } =
      kind < 0.2
        ? await this.#client.query("UPDATE customers SET note = $2 WHERE id = $1", [
            id,
            inventLongNote(this.#random),
          ])
        : kind < 0.6
          ? await this.#client.query("UPDATE customers SET credit = credit + $2 WHERE id = $1", [id, "12.34"])
          : await this.#client.query("UPDATE customers SET tier = $2 WHERE id = $1", [
              id,
              oneOf(this.#random, ["basic", "silver", "gold"]),
            ]);
    return this.#rows(rowCount ?? 0);
  }

  async forgetCustomer(): Promise<TransactionOutcome> {
    const id = this.#prospects.shift();
    if (id === undefined) return NOTHING;
    const { rowCount } = await this.#client.query("DELETE FROM customers WHERE id = $1", [id]);
    return this.#rows(rowCount ?? 0);
  }

  /** A key change: a delete of the old key and a create of the new one. */
  async renumberCustomer(): Promise<TransactionOutcome> {
    const id = this.#prospects.shift();
    if (id === undefined) return NOTHING;
    const { rows } = await this.#client.query<{ id: string }>(
      "UPDATE customers SET id = nextval(pg_get_serial_sequence('customers', 'id')) WHERE id = $1 RETURNING id",
      [id],
    );
    this.#prospects.push(...rows.map((row) => row.id));
    return this.#rows(2 * rows.length);
  }

  async placeOrders(count: number): Promise<TransactionOutcome> {
    return this.#transaction(async () => {
      const { orders, changes } = await this.#insertOrders(count);
      return { changes, remember: () => this.#orders.push(...orders) };
    });
  }

  /** As a shop does it that takes over another one's orders. */
  async importOrders(count: number): Promise<TransactionOutcome> {
    return this.#transaction(async () => {
      const { rows } = await this.#client.query<{ id: string }>(
        "SELECT nextval(pg_get_serial_sequence('orders', 'id')) AS id FROM generate_series(1, $1)",
        [count],
      );
      const drafts = rows.map(({ id }) => ({ id, items: inventItems(this.#random) }));
      await this.#copy(
        "COPY orders (id, customer_id, status, total) FROM STDIN",
        drafts.map(({ id, items }) => [id, this.#customer(), "placed", totalOf(items)]),
      );
      await this.#copy(
        "COPY order_items (order_id, line, sku, quantity, price) FROM STDIN",
        drafts.flatMap(({ id, items }) => items.map((i) => [id, i.line, i.sku, i.quantity, i.price])),
      );
      const orders = drafts.map(({ id, items }) => newOrder(id, items));
      return { changes: countRows(orders), remember: () => this.#orders.push(...orders) };
    });
  }

  async advanceOrders(count: number): Promise<TransactionOutcome> {
    const start = this.#pickIndex(this.#orders);
    const chosen = this.#orders.slice(start, start + count).filter((order) => order.status !== "delivered");
    return this.#transaction(async () => {
      let changes = 0;
      for (const status of ["placed", "paid", "shipped"] as const) {
        const ids = chosen.filter((order) => order.status === status).map((order) => order.id);
        if (ids.length === 0) continue;
        const { rowCount } = await this.#client.query(
          "UPDATE orders SET status = $2, updated_at = now() WHERE id = ANY($1)",
          [ids, NEXT_STATUS[status]],
        );
        changes += rowCount ?? 0;
        for (const id of ids) await this.#publish(id, `Order ${NEXT_STATUS[status]}`, {});
      }
      return {
        changes,
        remember: () => {
          for (const order of chosen) {
            if (order.status !== "delivered") order.status = NEXT_STATUS[order.status];
          }
        },
      };
    });
  }

  /** A cancelled order is never touched again: it must have been notified exactly once. */
  async cancelOrder(): Promise<TransactionOutcome> {
    const order = this.#orders.find((candidate) => candidate.status === "placed");
    if (order === undefined) return NOTHING;
    this.#orders.splice(this.#orders.indexOf(order), 1);
    const poison = ++this.#cancellations % POISON_EVERY === 3;
    return this.#transaction(async () => {
      await this.#client.query("UPDATE orders SET status = 'cancelled', updated_at = now() WHERE id = $1", [
        order.id,
      ]);
      const reason = poison ? POISON_REASON : oneOf(this.#random, KNOWN_REASONS);
      await this.#client.query("INSERT INTO cancellations (order_id, reason) VALUES ($1, $2)", [
        order.id,
        reason,
      ]);
      await this.#publish(order.id, "Order cancelled", { reason });
      return { changes: 2 };
    });
  }

  async changeItems(count: number): Promise<TransactionOutcome> {
    const start = this.#pickIndex(this.#orders);
    const ids = this.#orders.slice(start, start + count).map((order) => order.id);
    return this.#transaction(async () => {
      const items = await this.#client.query(
        "UPDATE order_items SET quantity = quantity % 9 + 1 WHERE order_id = ANY($1) AND line = 1",
        [ids],
      );
      const orders = await this.#client.query(
        `UPDATE orders SET updated_at = now(), total =
           (SELECT coalesce(sum(quantity * price), 0) FROM order_items WHERE order_id = orders.id)
         WHERE id = ANY($1)`,
        [ids],
      );
      return { changes: (items.rowCount ?? 0) + (orders.rowCount ?? 0) };
    });
  }

  async removeItem(): Promise<TransactionOutcome> {
    const order = this.#pick(this.#orders);
    const line = order?.lines.at(-1);
    if (order === undefined || line === undefined) return NOTHING;
    const { rowCount } = await this.#client.query(
      "DELETE FROM order_items WHERE order_id = $1 AND line = $2",
      [order.id, line],
    );
    order.lines = order.lines.slice(0, -1);
    return this.#rows(rowCount ?? 0);
  }

  async archiveOrders(count: number): Promise<TransactionOutcome> {
    const ids = this.#orders.slice(0, count).map((order) => order.id);
    return this.#transaction(async () => {
      const items = await this.#client.query("DELETE FROM order_items WHERE order_id = ANY($1)", [ids]);
      const orders = await this.#client.query("DELETE FROM orders WHERE id = ANY($1)", [ids]);
      return {
        changes: (items.rowCount ?? 0) + (orders.rowCount ?? 0),
        remember: () => this.#orders.splice(0, ids.length),
      };
    });
  }

  /** A key change of an order, which cascades to its items. */
  async renumberOrder(): Promise<TransactionOutcome> {
    const index = this.#pickIndex(this.#orders);
    const order = this.#orders[index];
    if (order === undefined) return NOTHING;
    const { rows } = await this.#client.query<{ id: string }>(
      "UPDATE orders SET id = nextval(pg_get_serial_sequence('orders', 'id')) WHERE id = $1 RETURNING id",
      [order.id],
    );
    const id = rows[0]?.id;
    if (id !== undefined) this.#orders[index] = { ...order, id };
    return this.#rows(2 * (1 + order.lines.length));
  }

  /** Orders that never were: nothing of them may arrive anywhere. */
  async giveUpOrders(count: number): Promise<TransactionOutcome> {
    await this.#client.query("BEGIN");
    await this.#insertOrders(count);
    await this.#client.query("ROLLBACK");
    return { committed: false, changes: 0 };
  }

  /** An order placed on the second try, with the first one undone by a savepoint. */
  async placeOrderOnSecondTry(): Promise<TransactionOutcome> {
    return this.#transaction(async () => {
      const first = await this.#insertOrders(1);
      await this.#client.query("SAVEPOINT attempt");
      const published = this.#published;
      await this.#insertOrders(2);
      await this.#client.query("ROLLBACK TO SAVEPOINT attempt");
      this.#published = published;
      const last = await this.#insertOrders(1);
      return {
        changes: first.changes + last.changes,
        remember: () => this.#orders.push(...first.orders, ...last.orders),
      };
    });
  }

  async #insertOrders(count: number): Promise<{ orders: Order[]; changes: number }> {
    const drafts = Array.from({ length: count }, () => inventItems(this.#random));
    const { rows } = await this.#client.query<{ id: string }>(
      "INSERT INTO orders (customer_id, total) SELECT * FROM unnest($1::bigint[], $2::numeric[]) RETURNING id",
      [drafts.map(() => this.#customer()), drafts.map(totalOf)],
    );
    const lines = drafts.flatMap((items, i) => items.map((item) => ({ order: rows[i]?.id, ...item })));
    await this.#client.query(
      `INSERT INTO order_items (order_id, line, sku, quantity, price)
       SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::integer[], $5::numeric[])`,
      [
        lines.map((l) => l.order),
        lines.map((l) => l.line),
        lines.map((l) => l.sku),
        lines.map((l) => l.quantity),
        lines.map((l) => l.price),
      ],
    );
    const orders = rows.map(({ id }, i) => newOrder(id, drafts[i] ?? []));
    for (const [i, { id }] of orders.entries()) {
      await this.#publish(id, "Order placed", { total: totalOf(drafts[i] ?? []) });
    }
    return { orders, changes: countRows(orders) };
  }

  async #publish(aggregateId: string, type: string, payload: object): Promise<void> {
    if (!this.#outbox) return;
    await this.#outbox.publish(this.#client, { aggregateType: "order", aggregateId, type, payload });
    this.#published++;
  }

  /** A transaction of one statement, which publishes nothing. */
  #rows(changes: number): TransactionOutcome {
    return { committed: true, changes: this.#outbox ? 0 : changes };
  }

  async #transaction(
    work: () => Promise<{ changes: number; remember?: () => unknown }>,
  ): Promise<TransactionOutcome> {
    this.#published = 0;
    await this.#client.query("BEGIN");
    const { changes, remember } = await work();
    await this.#client.query("COMMIT");
    remember?.();
    return { committed: true, changes: this.#outbox ? this.#published : changes };
  }

  async #copy(statement: string, rows: readonly (readonly unknown[])[]): Promise<void> {
    // The values are our own: none holds a tab, a newline or a backslash.
    const text = rows.map((row) => `${row.join("\t")}\n`).join("");
    await pipeline([text], this.#client.query(copyFrom(statement)));
  }

  #customer(): string {
    const id = this.#pick(this.#customers);
    if (id === undefined) throw new Error("register customers before placing orders");
    return id;
  }

  #pick<T>(values: readonly T[]): T | undefined {
    return values[this.#pickIndex(values)];
  }

  #pickIndex(values: readonly unknown[]): number {
    return between(this.#random, 0, Math.max(0, values.length - 1));
  }
}

function newOrder(id: string, items: readonly NewItem[]): Order {
  return { id, status: "placed", lines: items.map((item) => item.line) };
}

function countRows(orders: readonly Order[]): number {
  return orders.reduce((sum, order) => sum + 1 + order.lines.length, 0);
}
