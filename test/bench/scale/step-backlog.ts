import pg from "pg";
import type { EmbeddedPostgres } from "../../../lib/local/embedded-postgres.ts";
import { type Backlog, PUBLICATION } from "../capture/backlog.ts";
import type { Step } from "./rows.ts";

const RETAINED = "retained";

/** Writes a step's changes into a database of its own; dropped, with its slot, at the end. */
export async function writeStep(server: EmbeddedPostgres, step: Step, database: string): Promise<Backlog> {
  await onServer(server.url, `CREATE DATABASE ${database}`);
  const databaseUrl = new URL(server.url);
  databaseUrl.pathname = `/${database}`;
  const client = new pg.Client({ connectionString: databaseUrl.href });
  client.on("error", () => {});
  await client.connect();
  const query = async (sql: string) => (await client.query(sql)).rows;
  const slot = `${database}_${RETAINED}`;
  for (const sql of step.setup) await query(sql);
  const tables = await query(
    "SELECT format('%I', tablename) AS name FROM pg_tables WHERE schemaname = 'public'",
  );
  await query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE ${tables.map(({ name }) => name).join(", ")}`);
  const [begin] = await query(
    `SELECT lsn::text AS lsn, pg_snapshot_xmax(pg_current_snapshot())::text AS xmax
       FROM pg_create_logical_replication_slot('${slot}', 'pgoutput')`,
  );
  await query("SET synchronous_commit = off");
  for (const sql of step.write) await query(sql);
  const [end] = await query(
    `SELECT pg_current_wal_insert_lsn()::text AS lsn,
            (pg_current_wal_insert_lsn() - '${begin?.lsn}'::pg_lsn)::float8 AS bytes,
            (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - ${begin?.xmax})::int AS commits`,
  );
  await query("CHECKPOINT");
  const drop = (name: string) =>
    query(
      `SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = '${name}' AND active_pid IS NOT NULL`,
    ).then(() => query(`SELECT pg_drop_replication_slot('${name}')`));
  return {
    server,
    databaseUrl: databaseUrl.href,
    changes: step.changes,
    commits: end?.commits,
    endLsn: end?.lsn,
    walBytes: end?.bytes,
    query,
    async withSlot(name, read) {
      await query(`SELECT pg_copy_logical_replication_slot('${slot}', '${name}')`);
      try {
        return await read();
      } finally {
        await drop(name);
      }
    },
    async [Symbol.asyncDispose]() {
      await drop(slot);
      await client.end();
      await onServer(server.url, `DROP DATABASE ${database} WITH (FORCE)`);
    },
  };
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
