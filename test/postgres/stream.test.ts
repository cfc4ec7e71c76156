import { afterEach, expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { parseLsn } from "../../lib/change/lsn.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { definition, ids, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Server = Parameters<Parameters<typeof eachPostgres>[1]>[0];

async function shop(server: Server) {
  const url = await freshDatabase(server());
  const client = await superuser(url);
  cleanups.push(() => client.end().catch(() => {}));
  await client.query("CREATE TABLE orders (id int PRIMARY KEY, note text)");
  return { url, client, slot: definition(url).source.slot };
}

async function open(url: string, options: Parameters<typeof OpenSource.open>[1] = {}): Promise<OpenSource> {
  const source = await OpenSource.open(url, options);
  cleanups.push(() => source.close());
  return source;
}

const insert = (from: number, to: number, width = 1) =>
  `INSERT INTO orders SELECT i, repeat('x', ${width}) FROM generate_series(${from}, ${to}) i`;
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

eachPostgres(
  "streaming",
  (server) => {
    test("changes come in order, and what is acknowledged reaches record and slot, in that order", async () => {
      const { url, client, slot } = await shop(server);
      const record = new MemoryRecord();
      const source = await open(url, { record });
      for (let i = 0; i < 20; i++) await client.query(insert(i * 10 + 1, i * 10 + 10));
      await source.until(200);
      expect(ids(source.changes)).toEqual(range(1, 200));
      inOrder(source.changes);
      await source.close();
      const { rows } = await client.query("SELECT * FROM pg_replication_slots WHERE slot_name = $1", [slot]);
      expect(rows[0].active).toBe(false);
      expect(parseLsn(rows[0].confirmed_flush_lsn)).toBe(record.state?.confirmedLsn);
      const last = source.messages.filter((m) => m.kind === "commit").at(-1);
      expect(record.state?.confirmedLsn).toBeGreaterThanOrEqual(last?.endPlace as bigint);
      expect(record.state?.recentCommits.length).toBe(16);
    });

    test("a restart goes on right behind what was acknowledged", async () => {
      const { url, client } = await shop(server);
      const record = new MemoryRecord();
      const first = await open(url, { record });
      await client.query(insert(1, 10));
      await first.until(10);
      first.acknowledging = false;
      await client.query(insert(11, 20));
      await first.until(20);
      await first.close();
      const second = await open(url, { record });
      await client.query(insert(21, 30));
      await second.until(20);
      expect(ids(second.changes)).toEqual(range(11, 30));
    });

    test("hostile defaults of the database do not end our sessions", async () => {
      const { url, client } = await shop(server);
      for (const setting of [
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "idle_session_timeout = '50ms'",
        "search_path = 'nowhere'",
        "wal_sender_timeout = 0",
        ...(server().major >= 17 ? ["transaction_timeout = '500ms'"] : []),
      ]) {
        await client.query(`ALTER DATABASE ${new URL(url).pathname.slice(1)} SET ${setting}`);
      }
      const source = await open(url);
      await client.query(insert(1, 1000));
      await source.until(1000);
      // Longer than every one of them.
      const since = performance.now();
      await eventually(() => performance.now() - since > 1000, { what: "a second" });
      await client.query(insert(1001, 2000));
      await source.until(2000);
      expect(source.status?.reconnects ?? 0).toBe(0);
    });

    test("a terminated walsender is replaced: nothing lost, nothing twice, in the middle of a transaction too", async () => {
      const { url, client, slot } = await shop(server);
      const source = await open(url);
      for (let round = 0; round < 5; round++) {
        await client.query(insert(round * 5000 + 1, round * 5000 + 5000, 100));
        await source.until(round * 5000 + 50);
        source.block();
        await client.query(
          "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1",
          [slot],
        );
        source.unblock();
      }
      await source.until(25_000);
      expect(ids(source.changes)).toEqual(range(1, 25_000));
      inOrder(source.changes);
      expect(source.status?.reconnects).toBeGreaterThan(0);
    });

    test("an idle slot follows the log of other databases", async () => {
      const { url, client, slot } = await shop(server);
      await open(url, { walSenderTimeoutMs: 2000 });
      const other = await superuser(server().url);
      cleanups.push(() => other.end());
      const { rows } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn()::text AS lsn");
      await other.query(
        "CREATE TABLE IF NOT EXISTS noise (i int); INSERT INTO noise SELECT generate_series(1, 10000)",
      );
      await eventually(
        async () => {
          const { rows: now } = await client.query(
            "SELECT confirmed_flush_lsn > $2::pg_lsn AS moved FROM pg_replication_slots WHERE slot_name = $1",
            [slot, rows[0]?.lsn],
          );
          return now[0].moved as boolean;
        },
        { what: "the slot to move without a change of ours" },
      );
    });

    test("a consumer that blocks for several sender timeouts keeps the link", async () => {
      const { url, client, slot } = await shop(server);
      const source = await open(url, { walSenderTimeoutMs: 1000, blocked: true });
      await client.query(insert(1, 100_000, 200));
      const pid = async () =>
        (
          await client.query("SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1", [
            slot,
          ])
        ).rows[0].pid as number;
      const before = await pid();
      expect(before).not.toBeNull();
      const since = performance.now();
      // The condition is time itself: six times what a silent client would be given.
      await eventually(() => performance.now() - since > 6000, { what: "six sender timeouts" });
      expect(await pid()).toBe(before);
      source.unblock();
      await source.until(100_000);
      expect(source.status?.reconnects ?? 0).toBe(0);
    });
  },
  { settings: { max_connections: "60" } },
);

withPostgres((server) => {
  test("a fast stop of the server ends while the stream is blocked, and the stream goes on after the restart", async () => {
    const { url, client } = await shop(server);
    const source = await open(url);
    await client.query(insert(1, 10));
    await source.until(10);
    source.block();
    await client.query(insert(11, 100_010, 200));
    const started = performance.now();
    await server().restart({ mode: "fast" });
    // The server's own patience before it is killed is 20 s (embedded-postgres); a hung walsender would use it up.
    expect(performance.now() - started).toBeLessThan(15_000);
    source.unblock();
    await source.until(100_010);
    expect(ids(source.changes)).toEqual(range(1, 100_010));
  });

  test("a crash that forgets the slot's position brings no change twice, here and in the next process", async () => {
    const { url, client } = await shop(server);
    const record = new MemoryRecord();
    const source = await open(url, { record });
    const stalePosition = async () =>
      (
        await (
          await superuser(url)
        ).query("SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1", [
          definition(url).source.slot,
        ])
      ).rows[0].lsn as string;
    await client.query("CHECKPOINT");
    for (let i = 0; i < 30; i++) await client.query(insert(i * 10 + 1, i * 10 + 10));
    await source.until(300);
    await eventually(
      () =>
        record.state &&
        record.state.confirmedLsn >=
          (source.messages.filter((m) => m.kind === "commit").at(-1)?.endPlace as bigint),
      { what: "everything to be confirmed" },
    );
    const confirmed = record.state?.confirmedLsn as bigint;
    await server().kill();
    await server().restart();
    expect(parseLsn(await stalePosition())).toBeLessThan(confirmed);
    const again = await superuser(url);
    cleanups.push(() => again.end());
    await again.query(insert(301, 310));
    await source.until(310);
    expect(ids(source.changes)).toEqual(range(1, 310));
    await source.close();

    await server().kill();
    await server().restart();
    const next = await open(url, { record });
    const third = await superuser(url);
    cleanups.push(() => third.end());
    await third.query(insert(311, 320));
    await next.until(10);
    expect(ids(next.changes)).toEqual(range(311, 320));
  });

  test("asked to stop inside a transaction it goes on to its end, and nothing of it comes again", async () => {
    const { url, client } = await shop(server);
    const record = new MemoryRecord();
    const stop = new AbortController();
    // The catalog is asked about it: its type is no built-in one.
    await client.query("CREATE DOMAIN amount AS int; CREATE TABLE sums (id int PRIMARY KEY, sum amount)");
    const { source } = await open(url, { record, blocked: true, signal: stop.signal });
    await client.query(`BEGIN; ${insert(1, 19_999, 100)}; INSERT INTO sums VALUES (1, 1); COMMIT`);
    await client.query(insert(20_001, 20_100));
    const given: SourceMessage[] = [];
    for await (const batch of source.changes) {
      given.push(...batch);
      if (stop.signal.aborted || !batch.some(({ kind }) => kind === "change")) continue;
      expect(batch.at(-1)?.kind).toBe("change");
      stop.abort();
    }
    expect(given.filter(({ kind }) => kind === "change").length).toBe(20_000);
    const commit = given.at(-1);
    source.acknowledge(commit?.kind === "commit" ? commit.endPlace : 0n);
    await source.close();

    const next = await open(url, { record });
    await next.until(100);
    expect(ids(next.changes)).toEqual(range(20_001, 20_100));
  });

  test("asked to stop inside a transaction that does not come to its end, it ends all the same", async () => {
    const { url, client } = await shop(server);
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server().port });
    cleanups.push(() => proxy.stop());
    const stop = new AbortController();
    const { source } = await open(proxy.urlFor(url), { blocked: true, signal: stop.signal });
    await client.query(insert(1, 100_000, 100));
    const given: SourceMessage[] = [];
    for await (const batch of source.changes) {
      given.push(...batch);
      if (stop.signal.aborted || !batch.some(({ kind }) => kind === "change")) continue;
      for (const link of proxy.links) link.halfOpen();
      stop.abort();
    }
    expect(given.at(-1)?.kind).toBe("change");
    await source.close();
  });

  test("a half-open link is given up and replaced", async () => {
    const { url, client } = await shop(server);
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server().port });
    cleanups.push(() => proxy.stop());
    const source = await open(proxy.urlFor(url), { walSenderTimeoutMs: 1000 });
    await client.query(insert(1, 10));
    await source.until(10);
    for (const link of proxy.links) link.halfOpen();
    await client.query(insert(11, 20));
    await source.until(20);
    expect(ids(source.changes)).toEqual(range(1, 20));
    expect(source.log.lines.join("\n")).toMatch(/link is dead/);
  });

  test("a link cut inside a message at many places: every change once", async () => {
    const { url, client } = await shop(server);
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server().port });
    cleanups.push(() => proxy.stop());
    let cuts = 0;
    proxy.onLink = (link) => {
      if (link.replication && cuts++ < 8) link.cutInsideCopyData(1 + cuts * 37, cuts % 2 ? "rst" : "fin");
    };
    const source = await open(proxy.urlFor(url));
    for (let i = 0; i < 40; i++) await client.query(insert(i * 25 + 1, i * 25 + 25, 300));
    await source.until(1000);
    expect(ids(source.changes)).toEqual(range(1, 1000));
    inOrder(source.changes);
    expect(source.status?.reconnects).toBeGreaterThanOrEqual(8);
  });

  test("what was decoded before a look-up failed is given, and the rest follows when it works again", async () => {
    const { url, client, slot } = await shop(server);
    await client.query(`
      CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE other REPLICA IDENTITY FULL;
      CREATE ROLE ${slot}_r LOGIN REPLICATION PASSWORD 'pw';
      GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${slot}_r;
      CREATE PUBLICATION ${definition(url).source.publication} FOR TABLE orders, other WITH (publish_via_partition_root)`);
    const theirs = new URL(url);
    [theirs.username, theirs.password] = [`${slot}_r`, "pw"];
    const source = await open(theirs.toString(), { pipeline: definition(url) });
    await client.query(insert(1, 1));
    await source.until(1);
    await client.query("REVOKE SELECT ON pg_catalog.pg_index FROM PUBLIC");
    await client.query(`BEGIN; ${insert(2, 10)}; INSERT INTO other VALUES (11); COMMIT`);
    await eventually(() => source.log.lines.join().includes("catalog"), { what: "the look-up to fail" });
    await client.query("GRANT SELECT ON pg_catalog.pg_index TO PUBLIC");
    await source.until(11);
    expect(ids(source.changes)).toEqual(range(1, 11));
  });

  test("each attempt asks the password provider anew", async () => {
    const { url, client, slot } = await shop(server);
    const passwords = ["wrong"];
    const parts = connectionFromUrl(url);
    let asked = 0;
    const source = await open(url, {
      connection: {
        ...parts,
        password: async () => {
          asked++;
          return passwords.length > 1 ? (passwords.shift() as string) : (parts.password as string);
        },
      },
    });
    const before = asked;
    passwords.push("expired", "expired too", "last");
    await client.query(
      "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1",
      [slot],
    );
    await client.query(insert(1, 10));
    await source.until(10);
    expect(asked).toBeGreaterThanOrEqual(before + 4);
  });

  test("a record that cannot be written ends the stream with its error", async () => {
    const { url, client } = await shop(server);
    const record = new MemoryRecord();
    const source = await open(url, { record });
    record.failure = new Error("the lease is lost");
    await client.query(insert(1, 10));
    expect(await source.failure()).toBe(record.failure);
  });

  test("one batch is bounded, however fast the server is", async () => {
    const { url, client } = await shop(server);
    const source = await open(url, { blocked: true });
    await client.query(insert(1, 50_000, 100));
    let largest = 0;
    let total = 0;
    for await (const batch of source.source.changes) {
      const bytes = batch.reduce(
        (sum, message) => sum + (message.kind === "change" ? message.json.length : 0),
        0,
      );
      largest = Math.max(largest, bytes);
      total += batch.filter((message) => message.kind === "change").length;
      if (total === 50_000) break;
    }
    expect(largest).toBeLessThan(4 * 1024 * 1024);
  });
});
