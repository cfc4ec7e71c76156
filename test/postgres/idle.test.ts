import { afterEach, expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { withKeepalivesInside, withoutKeepalives } from "./keepalive-filter.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Server = Parameters<Parameters<typeof eachPostgres>[1]>[0];

/** An open source of `orders`, and a table `noise` that is not published. */
async function shop(server: Server, options: { through?: number; walSenderTimeoutMs?: number } = {}) {
  const url = await freshDatabase(server());
  const way = new URL(url);
  if (options.through !== undefined) way.port = String(options.through);
  const client = await superuser(url);
  cleanups.push(() => client.end().catch(() => {}));
  await client.query("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE noise (t text)");
  const pipeline = definition(url, { tables: ["public.orders"] });
  const { slot } = pipeline.source;
  const record = new MemoryRecord();
  const source = await OpenSource.open(way.toString(), {
    pipeline,
    record,
    ...(options.walSenderTimeoutMs === undefined ? {} : { walSenderTimeoutMs: options.walSenderTimeoutMs }),
  });
  cleanups.push(() => source.close());
  const moved = async (lsn: string, column = "confirmed_flush_lsn") => {
    const { rows } = await client.query(
      `SELECT ${column} >= $2::pg_lsn AS moved FROM pg_replication_slots WHERE slot_name = $1`,
      [slot, lsn],
    );
    return rows[0]?.moved === true;
  };
  return { url, client, source, slot, moved };
}

/** Writes 1 MB again and again until told to stop; the LSN behind the first. */
async function noisy(url: string): Promise<{ lsn: string; stop: () => Promise<void> }> {
  const client = await superuser(url);
  await client.query(`CREATE TABLE IF NOT EXISTS noise (t text)`);
  const write = async () => {
    await client.query("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    await client.query("SELECT pg_sleep(0.02)");
  };
  await write();
  const { rows } = await client.query("SELECT pg_current_wal_lsn()::text AS lsn");
  let writing = true;
  const running = (async () => {
    while (writing) await write();
  })();
  const stop = async () => {
    writing = false;
    await running;
    await client.end();
  };
  cleanups.push(stop);
  return { lsn: rows[0].lsn, stop };
}

eachPostgres("an idle publication", (server) => {
  test.each(["unpublished tables", "another database"])(
    "follows the log of %s while it grows, by keepalives alone",
    async (where) => {
      const { url, client, source, moved } = await shop(server);
      const other = where === "another database" ? await freshDatabase(server()) : url;
      const first = await noisy(other);
      await eventually(() => moved(first.lsn), { what: "the confirmed LSN to follow" });
      // The restart LSN follows at the server's next note of running transactions.
      await client.query("CHECKPOINT");
      const { rows } = await client.query("SELECT pg_current_wal_lsn()::text AS lsn");
      await eventually(() => moved(rows[0].lsn), { what: "it to follow again" });
      await eventually(() => moved(first.lsn, "restart_lsn"), { what: "the restart LSN to follow" });
      expect(source.status?.reconnects ?? 0).toBe(0);
      expect(source.messages.some(({ kind }) => kind === "change")).toBe(false);
    },
  );

  test("follows by a heartbeat where keepalives do not arrive; what is published arrives in its place", async () => {
    const filter = await withoutKeepalives(server().port);
    cleanups.push(filter.stop);
    const { url, client, source, moved } = await shop(server, {
      through: filter.port,
      walSenderTimeoutMs: 4000,
    });
    const first = await noisy(url);
    await eventually(() => moved(first.lsn), { what: "the confirmed LSN to follow" });
    expect(filter.count()).toBeGreaterThan(0);
    await first.stop();
    await client.query("INSERT INTO orders VALUES (1)");
    await source.until(1);
    expect(source.changes.length).toBe(1);
  });

  test("a long transaction shows: its process, and the log that it holds back", async () => {
    const { url, client, source, slot } = await shop(server, { walSenderTimeoutMs: 2000 });
    const long = await superuser(url);
    cleanups.push(() => long.end());
    await long.query("BEGIN; INSERT INTO orders VALUES (1)");
    const pid = (await long.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
    await client.query("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 5000)");
    await client.query("CHECKPOINT");
    const status = await eventually(
      () =>
        source.status?.oldestTransactionPid === pid &&
        (source.status?.walHeldBytes ?? 0) > 4_000_000 &&
        source.status,
      { what: "the transaction in the status" },
    );
    expect(status.oldestTransactionSeconds).toBeGreaterThan(0);
    const { rows } = await client.query(
      "SELECT (pg_current_wal_lsn() - restart_lsn)::float8 AS held FROM pg_replication_slots WHERE slot_name = $1",
      [slot],
    );
    expect(rows[0].held).toBeGreaterThan(4_000_000);
    await long.query("COMMIT");
    await source.until(1);
    await eventually(() => source.status?.oldestTransactionPid !== pid, { what: "it to be gone" });
  });

  test("a keepalive inside a transaction confirms nothing of it", async () => {
    const way = await withKeepalivesInside(Number(new URL(server().url).port));
    cleanups.push(way.stop);
    const { client, source, moved } = await shop(server, { through: way.port });
    await client.query("INSERT INTO orders SELECT generate_series(1, 50)");
    const { rows } = await client.query("SELECT pg_current_wal_lsn()::text AS lsn");
    await eventually(() => moved(rows[0].lsn), { what: "the slot to follow" });
    expect(way.count()).toBe(50);
    const kinds = source.messages.map(({ kind }) => kind);
    const first = kinds.indexOf("change");
    expect(kinds.slice(first, first + 51)).toEqual([...Array(50).fill("change"), "commit"]);
  });
});
