import { randomUUID } from "node:crypto";
import { ConfigurationError } from "../change/tributary-error.ts";
import { OUTBOX_PREFIX } from "../definition/outbox-prefix.ts";
import { outboxTableName, quoteOutboxTable } from "../definition/outbox-table.ts";
import { type OutboxEvent, OutboxEventError, outboxProblem } from "./event.ts";

export { type OutboxEvent, OutboxEventError } from "./event.ts";

/**
 * The connection on which the application began its transaction: a `pg.Client`, or anything with its `query`. Not a
 * pool: each of its queries may be a transaction of its own.
 *
 * @example
 * const client: OutboxClient = await pool.connect();
 */
export interface OutboxClient {
  query(text: string, values: unknown[]): Promise<unknown>;
}

/**
 * Publishes events inside the application's own transaction: they are told when it commits, and only then.
 *
 * @example
 * await client.query("BEGIN");
 * await client.query("UPDATE orders SET status = 'paid' WHERE id = $1", [17]);
 * await outbox.publish(client, { aggregateType: "order", aggregateId: "17", type: "OrderPaid", payload: { total } });
 * await client.query("COMMIT");
 */
export interface Outbox {
  /** Gives the event's id. @throws OutboxEventError before anything is written, and what `query` throws. */
  publish(client: OutboxClient, event: OutboxEvent): Promise<string>;
}

/**
 * Events through a table that `tributary outbox install` makes: for capture from the log, and for the relay.
 *
 * @example
 * export const outbox = outboxTable();
 * export const slim = outboxTable({ table: "app.outbox", deleteAtOnce: true });
 *
 * @throws ConfigurationError when the table is no name.
 */
export function outboxTable(
  options: {
    /** Default `public.outbox`. */
    readonly table?: string;
    /** Deletes the row in the same transaction: the log has it, the table stays empty. Never with a relay. */
    readonly deleteAtOnce?: boolean;
  } = {},
): Outbox {
  const table = quoteOutboxTable(outboxTableName(options.table ?? "public.outbox"));
  const insert = `INSERT INTO ${table} (id, aggregate_type, aggregate_id, type, payload, headers) VALUES ($1, $2, $3, $4, $5, $6)`;
  return {
    async publish(client, event) {
      const { id, aggregateType, aggregateId, type, payload, headers } = written(event);
      await client.query(insert, [id, aggregateType, aggregateId, type, payload, headers]);
      if (options.deleteAtOnce) await client.query(`DELETE FROM ${table} WHERE id = $1`, [id]);
      return id;
    },
  };
}

/**
 * Events as logical messages, with no table at all: for capture from the log.
 * https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 *
 * @example
 * export const outbox = outboxMessages();
 *
 * @throws ConfigurationError when the prefix is empty or Tributary's own.
 */
export function outboxMessages(
  options: {
    /** As `source.outbox.messages` says; default `outbox`. */
    readonly prefix?: string;
  } = {},
): Outbox {
  const prefix = options.prefix ?? OUTBOX_PREFIX;
  if (prefix === "" || prefix.startsWith("tributary.")) {
    const remedy = 'write a prefix of your own, such as "outbox": "tributary." is taken';
    throw new ConfigurationError("The outbox", [{ path: "prefix", value: prefix, remedy }]);
  }
  return {
    async publish(client, event) {
      const { id, aggregateType, aggregateId, type, payload, headers } = written(event);
      const createdAt = new Date().toISOString();
      const facts = JSON.stringify({ id, aggregateType, aggregateId, type, createdAt });
      // What is JSON text already goes in as it is.
      const content = `${facts.slice(0, -1)},"payload":${payload},"headers":${headers}}`;
      await client.query("SELECT pg_logical_emit_message(true, $1, $2::text)", [prefix, content]);
      return id;
    },
  };
}

/** The event as it is written: complete, payload and headers as JSON text. */
function written(event: OutboxEvent) {
  const problem = outboxProblem({ ...event });
  if (problem !== undefined) throw new OutboxEventError(problem);
  const { id = randomUUID(), aggregateType, aggregateId, type, headers = {} } = event;
  return {
    id: id.toLowerCase(),
    aggregateType,
    aggregateId,
    type,
    payload: jsonText("payload", event.payload),
    headers: jsonText("headers", headers),
  };
}

function jsonText(member: string, value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    // A bigint, or an object that holds itself.
  }
  if (text === undefined) throw new OutboxEventError(`${member} is nothing that JSON can hold`);
  return text;
}
