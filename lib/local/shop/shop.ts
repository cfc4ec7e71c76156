import { readFile } from "node:fs/promises";
import pg from "pg";
import { parseLsn } from "../../change/lsn.ts";
import type { Pipeline } from "../../definition/definition.ts";
import type { EmbeddedPostgres } from "../embedded-postgres.ts";
import type { LocalAws } from "../host.ts";
import { createQueue, createTable } from "../resources.ts";
import { createShop } from "./schema.ts";
import { prepareSource } from "./sources/prepare.ts";

/** Databases, table and queue of the shop's application and its example consumers. */
export interface Shop {
  /** The shop's own database: the source. */
  readonly databaseUrl: string;
  /** The database that order-summary keeps. */
  readonly readModelUrl: string;
  /** The queue that notifications sends its letters to. */
  readonly letterQueueUrl: string;
  /** Variables that the example handlers read. */
  readonly handlerEnvironment: Readonly<Record<string, string>>;
}

const READ_MODEL_SQL = new URL("../../../functions/order-summary.sql", import.meta.url);
const CUSTOMER_TABLE = "shop-customers";
const LETTER_QUEUE = "shop-letters";

/**
 * Bounds the WAL that a stopped pipeline keeps: the shop's database needs not accept an unbounded one.
 * https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-MAX-SLOT-WAL-KEEP-SIZE
 */
export const SHOP_SERVER_SETTINGS = { max_slot_wal_keep_size: "4GB" };

/** Makes the shop's two databases on a fresh server, with what the definition's source needs, and its table and queue. */
export async function openShop(
  server: EmbeddedPostgres,
  aws: LocalAws,
  definition?: Pipeline,
): Promise<Shop> {
  const databaseUrl = await createDatabase(server, "shop");
  const readModelUrl = await createDatabase(server, "shop_read_model");
  await withClient(databaseUrl, async (client) => {
    await createShop(client);
    if (definition) await prepareSource(client, definition);
  });
  const readModel = await readFile(READ_MODEL_SQL, "utf8");
  await withClient(readModelUrl, (client) => client.query(readModel));
  await createTable(aws.clients.dynamodb, CUSTOMER_TABLE, ["id"]);
  const letterQueueUrl = await createQueue(aws.clients.sqs, LETTER_QUEUE);
  return {
    databaseUrl,
    readModelUrl,
    letterQueueUrl,
    handlerEnvironment: {
      READ_MODEL_URL: readModelUrl,
      CUSTOMER_TABLE,
      LETTER_QUEUE_URL: letterQueueUrl,
    },
  };
}

/** Returns the LSN at which the log ends now: everything committed before lies below. */
export async function endOfLog({ databaseUrl }: Shop): Promise<bigint> {
  const { rows } = await withClient(databaseUrl, (client) =>
    client.query<{ lsn: string }>("SELECT pg_current_wal_insert_lsn() AS lsn"),
  );
  return parseLsn(rows[0]?.lsn ?? "0/0");
}

/** Runs something on a connection of its own. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function createDatabase(server: EmbeddedPostgres, name: string): Promise<string> {
  await withClient(server.url, (client) => client.query(`CREATE DATABASE ${name}`));
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return url.href;
}
