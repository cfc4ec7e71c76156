import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import type { HoldSettings } from "../../lib/source/postgres/hold/held-topics.ts";
import { TopicHoldFullError } from "../../lib/source/postgres/hold/hold-errors.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { replay } from "./backfill-replay.ts";
import { MemoryHolds } from "./hold-record.ts";
import { MemoryRereads } from "./reread-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-hold-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A pipeline over a database without an encoding, in which any bytes may stand for text. */
async function scene(server: Parameters<typeof freshDatabase>[0]) {
  const url = await freshDatabase(server, { encoding: "SQL_ASCII" });
  const client = await superuser(url);
  await client.query("SET client_encoding = 'SQL_ASCII'");
  await client.query(
    "CREATE TABLE public.orders (id int PRIMARY KEY, v text); CREATE TABLE public.items (id int PRIMARY KEY, v text)",
  );
  const record = new MemoryRecord();
  const holds = new MemoryHolds();
  const settings: HoldSettings = { record: holds, store: new DirectoryClaimStore(directory), generation: 1 };
  const open = (
    encoding: "utf-8" | "latin1" = "utf-8",
    more: Partial<Parameters<typeof OpenSource.open>[1]> = {},
  ) =>
    OpenSource.open(url, {
      pipeline: definition(url, { sqlAsciiEncoding: encoding }),
      record,
      holds: settings,
      ...more,
    });
  return { url, client, record, holds, settings, open };
}

const UNREADABLE = "chr(233)";
const put = (client: pg.Client, table: string, id: number, v = "'x'") =>
  client.query(`INSERT INTO public.${table} VALUES (${id}, ${v})`);

/** `orders 1` for the row with id 1 of public.orders. */
const rows = (changes: readonly SourceChange[]) =>
  changes.map((change) => `${change.table.slice(7)} ${JSON.parse(`${change.json}}}`).after?.id}`);
const ofOrders = (changes: readonly SourceChange[]) =>
  rows(changes).filter((row) => row.startsWith("orders"));

eachPostgres("a held topic", (server) => {
  test("keeps its changes from the one on that cannot become an event; the others go on, and the slot moves", async () => {
    const { client, record, holds, open } = await scene(server());
    const source = await open();
    await put(client, "orders", 1);
    await client.query("BEGIN");
    await put(client, "orders", 2);
    await put(client, "orders", 3, UNREADABLE);
    await put(client, "items", 1);
    await put(client, "orders", 4);
    await client.query("COMMIT");
    await put(client, "items", 2);
    await source.until(4);
    expect(rows(source.changes)).toEqual(["orders 1", "orders 2", "items 1", "items 2"]);
    const { rows: end } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn() - '0/0' AS lsn");
    await put(client, "items", 3);
    await eventually(() => (record.state?.confirmedLsn ?? 0n) >= BigInt(end[0]?.lsn ?? 0), {
      what: "the slot to pass the held changes",
    });
    const [hold] = await holds.list();
    expect(hold).toMatchObject({
      topic: "shop.public.orders",
      changes: 2,
      // Who stored the last of them must be known when the server comes back without it.
      by: 1,
      reason: { code: "TEXT_ENCODING", table: "public.orders" },
    });
    await eventually(() => source.status?.holds.some(({ changes }) => changes === 2) === true, {
      what: "the metrics to tell",
    });
    expect(source.error).toBeUndefined();
    await source.close();
    await client.end();
  });

  test("is released after a restart that can read it: in its order, before newer changes", async () => {
    const { client, holds, open } = await scene(server());
    const first = await open();
    await put(client, "orders", 1, UNREADABLE);
    await client.query("UPDATE public.orders SET v = 'y' WHERE id = 1");
    await put(client, "orders", 2);
    await put(client, "items", 1);
    await first.until(1);
    await eventually(() => [...holds.holds.values()][0]?.changes === 3, { what: "the hold" });
    await first.close();
    expect(rows(first.changes)).toEqual(["items 1"]);
    holds.wanted.add("shop.public.orders");
    await put(client, "orders", 3);
    const second = await open("latin1");
    await put(client, "orders", 4);
    await second.until(5);
    expect(rows(second.changes)).toEqual(["orders 1", "orders 1", "orders 2", "orders 3", "orders 4"]);
    expect(JSON.parse(`${second.changes[0]?.json}}}`).after.v).toBe("é");
    inOrder(second.changes);
    await eventually(() => holds.holds.size === 0, { what: "the hold's end" });
    expect(holds.segments.size).toBe(0);
    await second.close();
    await client.end();
  });

  test("stays held where its release meets a change that still cannot be given; those before it are in the stream", async () => {
    const { client, holds, open } = await scene(server());
    const source = await open();
    await put(client, "orders", 1, UNREADABLE);
    await client.query("TRUNCATE public.orders");
    await put(client, "orders", 2);
    await eventually(() => [...holds.holds.values()][0]?.changes === 3, { what: "the hold" });
    holds.wanted.add("shop.public.orders");
    await eventually(() => source.log.lines.some((line) => line.includes("stopped")), {
      what: "the refusal",
    });
    expect(holds.wanted.size).toBe(0);
    await put(client, "items", 1);
    await source.until(1);
    expect(rows(source.changes)).toEqual(["items 1"]);
    await source.close();
    await client.end();
  });

  test("is released while changes of it go on coming", async () => {
    const { client, holds, open } = await scene(server());
    const first = await open();
    await put(client, "orders", 0, UNREADABLE);
    await client.query(
      "INSERT INTO public.orders SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g",
    );
    await eventually(() => [...holds.holds.values()][0]?.changes === 5001, { what: "the hold" });
    expect(holds.segments.size).toBeGreaterThan(1);
    await first.close();
    const second = await open("latin1");
    holds.wanted.add("shop.public.orders");
    let next = 5001;
    const writing = (async () => {
      while (holds.holds.size > 0 && next < 8000) await put(client, "orders", next++);
    })();
    await eventually(() => holds.holds.size === 0, { what: "the release", deadlineMs: 60_000 });
    await writing;
    await second.until(next);
    expect(ofOrders(second.changes)).toEqual(Array.from({ length: next }, (_, id) => `orders ${id}`));
    await second.close();
    await client.end();
  });

  test("confirms nothing that is neither acknowledged nor stored", async () => {
    const { client, record, holds, settings, open } = await scene(server());
    let stored = Promise.withResolvers<void>();
    const store = new DirectoryClaimStore(directory);
    const put1 = store.put.bind(store);
    store.put = async (claim, bytes, signal) => {
      await Promise.race([stored.promise, once(signal, "abort")]);
      signal.throwIfAborted();
      await put1(claim, bytes, signal);
    };
    const source = await open("utf-8", { holds: { ...settings, store } });
    await put(client, "orders", 1, UNREADABLE);
    const { rows: place } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn() - '0/0' AS lsn");
    await put(client, "items", 1);
    await put(client, "items", 2);
    await source.until(2);
    await source.close();
    expect(record.state?.confirmedLsn).toBeLessThan(BigInt(place[0]?.lsn ?? 0));
    stored.resolve();
    stored = Promise.withResolvers();
    stored.resolve();
    // It comes again, and is stored then.
    holds.holds.clear();
    const second = await open();
    await eventually(() => [...holds.holds.values()][0]?.changes === 1, { what: "the hold" });
    await second.close();
    await client.end();
  });

  test("gives again what stood before it and was not confirmed, and stores nothing twice", async () => {
    const { client, holds, record, open } = await scene(server());
    const first = await open("utf-8", { acknowledging: false });
    await put(client, "orders", 1);
    await put(client, "orders", 2, UNREADABLE);
    await put(client, "orders", 3);
    await eventually(() => [...holds.holds.values()][0]?.changes === 2, { what: "the hold" });
    expect(rows(first.changes)).toEqual(["orders 1"]);
    await first.close();
    const confirmed = record.state?.confirmedLsn;
    holds.wanted.add("shop.public.orders");
    const second = await open("latin1");
    await second.until(3);
    await put(client, "orders", 4);
    await second.until(4);
    expect(rows(second.changes)).toEqual(["orders 1", "orders 2", "orders 3", "orders 4"]);
    inOrder(second.changes);
    expect(record.state?.confirmedLsn).toBeGreaterThan(confirmed ?? 0n);
    await second.close();
    await client.end();
  });

  test("lasts until its changes are stored in the stream: a release that was cut off begins anew", async () => {
    const { client, holds, open } = await scene(server());
    const first = await open();
    await put(client, "orders", 1, UNREADABLE);
    await put(client, "orders", 2);
    await eventually(() => [...holds.holds.values()][0]?.changes === 2, { what: "the hold" });
    await first.close();
    holds.wanted.add("shop.public.orders");
    const second = await open("latin1", { acknowledging: false });
    await put(client, "items", 1);
    await second.until(2);
    await second.close();
    expect(rows(second.changes)).toEqual(["orders 1", "orders 2"]);
    expect(holds.holds.size).toBe(1);
    const third = await open("latin1");
    await third.until(3);
    expect(ofOrders(third.changes)).toEqual(["orders 1", "orders 2"]);
    await eventually(() => holds.holds.size === 0, { what: "the hold's end" });
    await third.close();
    await client.end();
  });

  test("is bounded: at its limit the stream ends with a remedy, and nothing more is confirmed", async () => {
    const { client, settings, open } = await scene(server());
    const source = await open("utf-8", { holds: { ...settings, limitBytes: 3000 } });
    await put(client, "orders", 1, UNREADABLE);
    await put(client, "orders", 2, "repeat('x', 4000)");
    const error = await source.failure();
    expect(error).toBeInstanceOf(TopicHoldFullError);
    expect((error as TopicHoldFullError).remedy).toContain(
      "tributary capture release --topic shop.public.orders",
    );
    await source.close();
    await client.end();
  });

  test("rows whose keys changed while it was held: they are read again, in its order, and what was asked for is on record first", async () => {
    const { url, client, holds, open } = await scene(server());
    await client.query(
      `ALTER TABLE public.orders ADD note text; ALTER TABLE public.orders ALTER note SET STORAGE EXTERNAL;
       INSERT INTO public.orders SELECT i, 'x', repeat(i::text, 3000) FROM generate_series(2, 3) i`,
    );
    const rereads = new MemoryRereads();
    const backfill = { record: new MemoryBackfills(), rereads, pollMs: 50 };
    const pipeline = (encoding: "utf-8" | "latin1") => ({
      pipeline: definition(url, { snapshot: "never", sqlAsciiEncoding: encoding }),
      backfill,
    });
    const first = await open("utf-8", pipeline("utf-8"));
    // One segment.
    await client.query("BEGIN");
    await put(client, "orders", 1, UNREADABLE);
    await client.query("UPDATE public.orders SET id = 20 WHERE id = 2");
    await client.query(`UPDATE public.orders SET id = 30, v = ${UNREADABLE} WHERE id = 3`);
    await client.query("COMMIT");
    await eventually(() => (holds.holds.get("shop.public.orders")?.changes ?? 0) >= 5, {
      what: "the row, held",
    });
    await first.close();
    expect(first.changes).toEqual([]);
    holds.wanted.add("shop.public.orders");
    rereads.failure = new Error("the state table is away");
    const second = await open("latin1", { ...pipeline("latin1"), backfill });
    expect(await second.failure()).toBe(rereads.failure);
    await second.close();
    expect(holds.holds.get("shop.public.orders")?.first).toBe(0);
    rereads.failure = undefined;
    const third = await open("latin1", pipeline("latin1"));
    await eventually(() => holds.holds.size === 0 && rereads.writes.length > 1 && rereads.tables.size === 0, {
      what: "the release",
    });
    inOrder(third.changes);
    const held = replay(third.changes, "public.orders");
    expect([...held.values()].map(({ id, v, note }) => [id, v, String(note).length])).toEqual([
      [1, "é", 4],
      [20, "x", 3000],
      [30, "é", 3000],
    ]);
    await third.close();
    await client.end();
  });
});
