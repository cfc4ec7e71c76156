import pg from "pg";
import {
  type ChangeEvent,
  Operation,
  type SinkRow,
  type Sweep,
  type TableName,
  type VerifiableTable,
} from "tributary-cdc";
import { type Sink, type SinkIdentity, sinkConsumer } from "tributary-cdc/sink";
import * as z from "zod/mini";

/*
 * Example of a bulk sink: keeps a read model in a PostgreSQL database of its own (order-summary.sql), many rows a
 * statement, each row only where the change's position is above the stored one. The fence already drops what comes
 * again; comparing positions closes what a fence cannot: a write still on the wire from an invocation that was
 * given up (docs, "Consumers").
 *
 * Why it is right:
 * - A row takes the last state of its key, whatever arrives in which order: the highest position wins.
 * - A delete leaves a tombstone with its position, so a late write from before it finds something above itself.
 * - A change of key is a delete of one key and a create of another (two partitions, either order): two rows here
 *   that know nothing of each other.
 * - A truncate concerns its own partition only: the other partitions' truncates come in their own place. So does a sweep,
 *   the end of a backfill: what it did not meet is below its bound, and was deleted while nobody read the log.
 * - An update carries the whole row, because these tables have no large columns: one that does not is refused, lest nulls
 *   overwrite what did not travel. Where a table has large columns (TOAST), those that an update did not touch do not
 *   (`event.unchanged`): leave them out of SET, as customer-view does, or give the table REPLICA IDENTITY FULL.
 */

/** A table of the read model: its name, its key, and its columns with their types. */
export interface ReadModelTable {
  readonly name: string;
  readonly key: readonly string[];
  readonly columns: Readonly<Record<string, string>>;
}

/** The read model's orders. */
export const orders: ReadModelTable = {
  name: "orders",
  key: ["id"],
  columns: {
    id: "bigint",
    customer_id: "bigint",
    status: "text",
    total: "numeric",
    placed_at: "timestamptz",
    updated_at: "timestamptz",
  },
};

const orderItems: ReadModelTable = {
  name: "order_items",
  key: ["order_id", "line"],
  columns: { order_id: "bigint", line: "integer", sku: "text", quantity: "integer", price: "numeric" },
};

/** All values as PostgreSQL prints them: nothing is lost on the way. */
const AS_TEXT: pg.CustomTypesConfig = { getTypeParser: () => (text: unknown) => text };

const readModelSecret = z.object({
  host: z.string(),
  port: z._default(z.number(), 5432),
  dbname: z._default(z.string(), "read_model"),
  username: z.string(),
  password: z.string(),
});

/** One pool for all invocations of this process; partitions of a batch run side by side. */
const pool = new pg.Pool({ ...(await readModel(process.env)), max: 4 });
// A connection that breaks while idle is replaced at the next use.
pool.on("error", () => {});

const readModelSink: Sink = {
  tables: ["public.orders", "public.order_items"],
  maxEvents: 2000,
  // One pattern matches all events of a call, and each pattern names a table.
  apply: async (events) => applyToReadModel(pool, tableOf(events[0]), events),
  sweep: async (sweep) => sweepReadModel(pool, tableOf(sweep), sweep),
  identity: () => readModelIdentity(pool),
  verify: {
    table(name) {
      const table = heldAs(name);
      return table && heldRows(pool, table);
    },
    close: () => pool.end(),
  },
};

export const handler = sinkConsumer("order-summary", readModelSink).handler();

/** For `tributary verify`. */
export const sink = readModelSink.verify;

function tableOf(name: TableName | undefined): ReadModelTable {
  const table = name && heldAs(name);
  if (!table) throw new Error(`the read model holds nothing of ${name?.schema}.${name?.table}`);
  return table;
}

function heldAs({ schema, table }: TableName): ReadModelTable | undefined {
  return schema === "public" ? [orders, orderItems].find(({ name }) => name === table) : undefined;
}

/** A table that was made anew has another oid, and so has a database. */
export async function readModelIdentity(database: pg.Pool): Promise<SinkIdentity> {
  const { rows } = await database.query<{ id: string }>(
    `SELECT concat_ws('/', (SELECT oid FROM pg_database WHERE datname = current_database()),
       to_regclass('orders')::oid, to_regclass('order_items')::oid) AS id`,
  );
  return { id: rows[0]?.id ?? "" };
}

/** Applies changes in their order: rows in one statement up to each truncate. */
export async function applyToReadModel(
  database: pg.Pool,
  table: ReadModelTable,
  events: readonly ChangeEvent[],
): Promise<void> {
  // One statement cannot touch a row twice: the last change of each key is what counts.
  const rows = new Map<string, object>();
  for (const event of events) {
    switch (event.operation) {
      case Operation.Message:
        continue;
      case Operation.Truncate:
        await write(database, table, rows);
        await removeBelow(database, table, event.partition, event.position);
        continue;
      default: {
        const { row } = event;
        const lacking = [...event.unchanged, ...event.omitted].filter((name) => name in table.columns);
        if (lacking.length > 0)
          throw new Error(
            `${table.name}: ${lacking.join(", ")} did not travel: REPLICA IDENTITY FULL is needed`,
          );
        const deleted = event.operation === Operation.Delete;
        rows.set(table.key.map((column) => row[column]).join("/"), {
          ...(deleted ? Object.fromEntries(table.key.map((column) => [column, row[column]])) : row),
          deleted_at: deleted ? event.committedAt : null,
          topic_partition: event.partition,
          position: event.position,
        });
      }
    }
  }
  await write(database, table, rows);
}

/** Removes what a backfill did not find in the source any more. */
export function sweepReadModel(
  database: pg.Pool,
  table: ReadModelTable,
  { partition, before }: Pick<Sweep, "partition" | "before">,
): Promise<void> {
  return removeBelow(database, table, partition, before);
}

/** The rows of a table that the read model holds. */
export function heldRows(database: pg.Pool, { name, key, columns }: ReadModelTable): VerifiableTable {
  const select = `SELECT ${Object.keys(columns).join(", ")} FROM ${name} WHERE deleted_at IS NULL`;
  return {
    columns: Object.keys(columns),
    async *rows(signal) {
      const client = await database.connect();
      try {
        await client.query("BEGIN READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'");
        await client.query(`DECLARE held NO SCROLL CURSOR FOR ${select}`);
        for (;;) {
          signal.throwIfAborted();
          const { rows } = await client.query<SinkRow>({ text: "FETCH 5000 FROM held", types: AS_TEXT });
          if (rows.length === 0) return;
          yield rows;
        }
      } finally {
        // With it its transaction goes.
        client.release(true);
      }
    },
    async row(row) {
      const client = await database.connect();
      try {
        await client.query("BEGIN READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'");
        const is = key.map((column, i) => `${column} = $${i + 1}`).join(" AND ");
        const values = key.map((column) => row[column]);
        const { rows } = await client.query<SinkRow>({ text: `${select} AND ${is}`, values, types: AS_TEXT });
        await client.query("ROLLBACK");
        client.release();
        return rows[0];
      } catch (error) {
        client.release(true);
        throw error;
      }
    },
  };
}

async function write(database: pg.Pool, table: ReadModelTable, rows: Map<string, object>): Promise<void> {
  if (rows.size === 0) return;
  const { name, key, columns } = table;
  const types = {
    ...columns,
    deleted_at: "timestamptz",
    topic_partition: "integer",
    position: "text",
  };
  const all = Object.keys(types);
  const typed = Object.entries(types).map(([column, type]) => `${column} ${type}`);
  const changed = all.filter((column) => !key.includes(column));
  await database.query({
    // A named statement is planned once for each connection.
    name: `write ${name}`,
    text: `
      INSERT INTO ${name} AS held (${all.join(", ")})
      SELECT ${all.map((column) => `incoming.${column}`).join(", ")}
      FROM json_to_recordset($1) AS incoming(${typed.join(", ")})
      LEFT JOIN truncated ON truncated.table_name = '${name}'
        AND truncated.topic_partition = incoming.topic_partition
      WHERE truncated.position IS NULL OR truncated.position < incoming.position
      -- Always in the same order: two writers of the same rows wait for each other instead of dead-locking.
      ORDER BY ${key.map((column) => `incoming.${column}`).join(", ")}
      ON CONFLICT (${key.join(", ")}) DO UPDATE
      SET ${changed.map((column) => `${column} = excluded.${column}`).join(", ")}
      WHERE held.position < excluded.position`,
    values: [JSON.stringify([...rows.values()])],
  });
  rows.clear();
}

/** The partition's rows below a position go, and what comes late from below it does nothing. */
async function removeBelow(
  database: pg.Pool,
  table: ReadModelTable,
  partition: number,
  position: string,
): Promise<void> {
  const client = await database.connect();
  try {
    await client.query("BEGIN");
    // Writes under way end first, later ones see the mark: none can slip between the two statements below.
    await client.query(`LOCK TABLE ${table.name} IN SHARE ROW EXCLUSIVE MODE`);
    await client.query(
      `INSERT INTO truncated AS held (table_name, topic_partition, position) VALUES ($1, $2, $3)
       ON CONFLICT (table_name, topic_partition) DO UPDATE SET position = excluded.position
       WHERE held.position < excluded.position`,
      [table.name, partition, position],
    );
    await client.query(`DELETE FROM ${table.name} WHERE topic_partition = $1 AND position < $2`, [
      partition,
      position,
    ]);
    await client.query("COMMIT");
    client.release();
  } catch (error) {
    // The connection may hold an open transaction: it is closed instead of going back to the pool.
    client.release(true);
    throw error;
  }
}

/**
 * The address of the read model: `READ_MODEL_URL`, or the secret of `READ_MODEL_SECRET_ARN`, as RDS writes it. The password
 * is asked for again by each connection, so that a rotated one is met.
 */
async function readModel(environment: NodeJS.ProcessEnv): Promise<pg.PoolConfig> {
  const { READ_MODEL_URL, READ_MODEL_SECRET_ARN: SecretId } = environment;
  if (!SecretId) return { connectionString: READ_MODEL_URL };
  const { GetSecretValueCommand, SecretsManagerClient } = await import("@aws-sdk/client-secrets-manager");
  const client = new SecretsManagerClient();
  const secret = async () => {
    const { SecretString = "" } = await client.send(new GetSecretValueCommand({ SecretId }));
    return readModelSecret.parse(JSON.parse(SecretString));
  };
  const { host, port, dbname, username } = await secret();
  return {
    host,
    port,
    database: dbname,
    user: username,
    password: async () => (await secret()).password,
    ssl: true,
  };
}
