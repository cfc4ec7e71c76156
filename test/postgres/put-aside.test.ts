import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { PUT_ASIDE } from "../../lib/change/control-event.ts";
import { parsePosition } from "../../lib/change/position.ts";
import { TributaryError } from "../../lib/change/tributary-error.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import { DeadLetterRefusedError } from "../../lib/consume/dead-letter/dead-letter-errors.ts";
import { CaptureLeaseLostError } from "../../lib/source/capture-lease-lost.ts";
import { eventually } from "../eventually.ts";
import { MemoryAsides } from "./aside-record.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { parsed, replay } from "./backfill-replay.ts";
import { MemoryHolds } from "./hold-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-aside-"));
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
  const asides = new MemoryAsides();
  const backfills = new MemoryBackfills();
  const open = (
    source: Parameters<typeof definition>[1] = {},
    more: Partial<Parameters<typeof OpenSource.open>[1]> = {},
  ) =>
    OpenSource.open(url, {
      pipeline: definition(url, {
        sqlAsciiEncoding: "utf-8",
        undecodable: "dead-letter",
        snapshot: "never",
        ...source,
      }),
      record,
      asides: { record: asides, queue: asides },
      backfill: { record: backfills, pollMs: 50 },
      ...more,
    });
  const holding = () => {
    const holds = new MemoryHolds();
    return {
      holds,
      settings: { record: holds, store: new DirectoryClaimStore(directory), generation: 1 },
    };
  };
  return { url, client, record, asides, backfills, open, holding };
}

const UNREADABLE = "chr(233)";
const put = (client: pg.Client, table: string, id: number, v = "'x'") =>
  client.query(`INSERT INTO public.${table} VALUES (${id}, ${v})`);

/** `c orders 1` for an insert of the row with id 1, `aside orders` for what was put aside. */
const told = (changes: readonly SourceChange[]) =>
  changes.map((change) => {
    const { op, before, after, message, source } = parsed(change);
    if (message?.prefix === PUT_ASIDE) return `aside ${source.table}`;
    return op === "m" ? "end of a backfill" : `${op} ${source.table} ${(after ?? before)?.id}`;
  });
/** Without what backfills give. */
const ofLog = (changes: readonly SourceChange[]) =>
  told(changes).filter((text) => !text.startsWith("r ") && !text.startsWith("end"));

eachPostgres("a change that is put aside", (server) => {
  test("is recorded, then sent whole, then told in its place; what follows it goes on", async () => {
    const { client, record, asides, backfills, open } = await scene(server());
    const source = await open();
    await put(client, "orders", 1);
    await client.query("BEGIN");
    await put(client, "orders", 2);
    await put(client, "orders", 3, UNREADABLE);
    await put(client, "items", 1);
    await client.query("COMMIT");
    await put(client, "orders", 4);
    await eventually(() => ofLog(source.changes).length >= 5, { what: "all changes" });
    expect(ofLog(source.changes)).toEqual([
      "c orders 1",
      "c orders 2",
      "aside orders",
      "c items 1",
      "c orders 4",
    ]);
    inOrder(source.changes);
    const [before, aside, behind] = source.changes.slice(1, 4) as SourceChange[];
    expect([before, aside, behind].map((change) => parsePosition(change?.position ?? "").ordinal)).toEqual([
      1, 2, 3,
    ]);
    expect(aside).toMatchObject({ topic: { name: "shop.public.orders" }, partition: -1 });
    expect(asides.order.slice(0, 3)).toEqual(["record first", "letter", "record sent"]);
    const [letter] = asides.letters;
    expect(letter).toMatchObject({
      ...{ pipeline: "shop", topic: "shop.public.orders", table: "public.orders", column: "v" },
      ...{ position: aside?.position, error: { code: "TEXT_ENCODING" } },
      relation: { columns: [{ name: "id" }, { name: "v" }] },
    });
    expect(letter?.xid).toBe(Number(parsed(before as SourceChange).source.txId));
    expect(letter?.bytes.includes(0xe9)).toBe(true);
    await eventually(() => source.status?.putAside === 1, { what: "the metrics to tell" });
    // Its table is read again; the row as it stands cannot be given there either.
    await eventually(() => backfills.items.get("public.orders")?.status === "refused", {
      what: "the backfill to be asked for",
    });
    expect(backfills.of("public.orders").request).toMatchObject({ sweep: true });
    await eventually(() => asides.asides.size === 0, { what: "the slot to pass it", deadlineMs: 20_000 });
    expect(record.state?.confirmedLsn).toBeGreaterThan(parsePosition(aside?.position ?? "").commitLsn);
    await source.close();
    await client.end();
  });

  test("has its table read again with a sweep, by a backfill that began behind it", async () => {
    const { client, asides, backfills, open } = await scene(server());
    await client.query("INSERT INTO public.orders SELECT g, 'x' FROM generate_series(1, 60) g");
    // One that is under way has read the first rows.
    await backfills.request("public.orders", { sweep: true, requestedAt: 1 });
    const source = await open({ backfill: { rowsPerSecond: 20 } });
    await eventually(() => (backfills.of("public.orders").progress?.rows ?? 0) > 0, {
      what: "its first rows",
    });
    await client.query(`UPDATE public.orders SET v = ${UNREADABLE} WHERE id = 1`);
    await client.query("UPDATE public.orders SET v = 'corrected' WHERE id = 1");
    await eventually(() => asides.letters.length === 1, { what: "the letter" });
    await eventually(() => backfills.of("public.orders").run === 2, { what: "the next", deadlineMs: 30_000 });
    await eventually(() => backfills.of("public.orders").status === "done", {
      what: "its end",
      deadlineMs: 30_000,
    });
    expect(backfills.of("public.orders").request.sweep).toBe(true);
    expect(replay(source.changes, "public.orders").size).toBe(60);
    await eventually(() => asides.asides.size === 0, { what: "it to be forgotten", deadlineMs: 20_000 });
    expect(backfills.of("public.orders").run).toBe(2);
    await source.close();
    await client.end();
  });

  test("comes again and is put aside again, whatever can be decoded by then, and is sent once", async () => {
    const { client, asides, open } = await scene(server());
    const first = await open({}, { acknowledging: false });
    await put(client, "orders", 1, UNREADABLE);
    await client.query("UPDATE public.orders SET id = 2, v = 'y'");
    await put(client, "items", 1);
    await eventually(() => ofLog(first.changes).length >= 4, { what: "all changes" });
    await first.close();
    const second = await open({ sqlAsciiEncoding: "latin1", undecodable: "stop" });
    await eventually(() => ofLog(second.changes).length >= 4, { what: "all changes again" });
    const places = (source: OpenSource) =>
      source.changes.filter((change) => parsed(change).op !== "r").map(({ position }) => position);
    expect(ofLog(second.changes)).toEqual(ofLog(first.changes));
    expect(places(second).slice(0, 4)).toEqual(places(first).slice(0, 4));
    expect(asides.letters).toHaveLength(1);
    // What comes now is decoded as it can be.
    await put(client, "orders", 3, UNREADABLE);
    await eventually(() => ofLog(second.changes).includes("c orders 3"), { what: "a new one" });
    await second.close();
    await client.end();
  });

  test("is of its topic: a topic that came from another slot may have one at the same position", async () => {
    for (const undecodable of ["stop", "dead-letter"] as const) {
      const { client, asides, open } = await scene(server());
      const first = await open({ undecodable }, { acknowledging: false });
      await client.query("BEGIN");
      await put(client, "orders", 1);
      await put(client, "orders", 2, UNREADABLE);
      await client.query("COMMIT");
      await eventually(() => first.changes.length >= 1, { what: "the first" });
      await first.close();
      const [{ position = "" } = {}] = first.changes;
      // The old slot counts the changes of its own tables only.
      await asides.write({
        ...{ topic: "shop.public.moved", table: "public.moved", position, code: "TEXT_ENCODING" },
        ...{ message: "m", since: 1, sent: true, reread: false },
      });
      const second = await open({ undecodable, sqlAsciiEncoding: "latin1" });
      await put(client, "items", 1);
      await eventually(() => second.error ?? ofLog(second.changes).includes("c items 1"), { what: "all" });
      expect(second.error).toBeUndefined();
      expect(ofLog(second.changes)[0]).toBe("c orders 1");
      await second.close();
      await client.end();
    }
  });

  test("may be an update that changes its key: no part of it is given, and both its ordinals are its own", async () => {
    const { client, asides, open } = await scene(server());
    const source = await open();
    await put(client, "orders", 1);
    await client.query("BEGIN");
    await client.query(`UPDATE public.orders SET id = 2, v = ${UNREADABLE}`);
    await put(client, "items", 1);
    await client.query("COMMIT");
    await eventually(() => ofLog(source.changes).length >= 3, { what: "all changes" });
    expect(ofLog(source.changes)).toEqual(["c orders 1", "aside orders", "c items 1"]);
    expect(source.changes.slice(1, 3).map(({ position }) => parsePosition(position).ordinal)).toEqual([2, 3]);
    expect(asides.letters).toHaveLength(1);
    await source.close();
    await client.end();
  });

  test("lets nothing behind it downstream before its letter is in the queue", async () => {
    const { client, record, asides, open } = await scene(server());
    asides.failure = new DeadLetterRefusedError(new Error("away"));
    const source = await open();
    await put(client, "orders", 1, UNREADABLE);
    const { rows } = await client.query<{ lsn: string }>("SELECT pg_current_wal_lsn() - '0/0' AS lsn");
    await put(client, "items", 1);
    await eventually(() => source.log.lines.some((line) => line.includes("cannot be put aside yet")), {
      what: "it to wait",
    });
    expect(source.changes).toEqual([]);
    // A task that ends meanwhile has confirmed nothing of it.
    await source.close();
    expect(source.error).toBeUndefined();
    expect(record.state?.confirmedLsn).toBeLessThan(BigInt(rows[0]?.lsn ?? 0));
    asides.failure = undefined;
    const second = await open();
    await eventually(() => ofLog(second.changes).length >= 2, { what: "both" });
    expect(ofLog(second.changes)).toEqual(["aside orders", "c items 1"]);
    await second.close();
    await client.end();
  });

  test("is the one that an operator names; the error says how, and others stop the stream all the same", async () => {
    const { client, asides, open } = await scene(server());
    const first = await open({ undecodable: "stop" });
    await put(client, "orders", 1, UNREADABLE);
    await put(client, "orders", 2);
    await put(client, "orders", 3, UNREADABLE);
    const error = (await first.failure()) as TributaryError;
    expect(error).toBeInstanceOf(TributaryError);
    const [, position = ""] = /tributary capture dead-letter --at ([0-9A-F]{34})/.exec(error.remedy) ?? [];
    await first.close();
    asides.wishes.add(position);
    const second = await open({ undecodable: "stop" });
    const next = (await second.failure()) as TributaryError;
    expect(ofLog(second.changes)).toEqual(["aside orders", "c orders 2"]);
    expect(next.remedy).not.toContain(position);
    expect(next.code).toBe("TEXT_ENCODING");
    expect(asides.wishes.size).toBe(0);
    await second.close();
    await client.end();
  });

  test("lets its topic's release go on behind it, in the topic's order", async () => {
    const { client, asides, open, holding } = await scene(server());
    const { holds, settings } = holding();
    const source = await open({ undecodable: "stop" }, { holds: settings });
    await put(client, "orders", 1);
    await put(client, "orders", 2, UNREADABLE);
    await put(client, "orders", 3);
    await eventually(() => [...holds.holds.values()][0]?.changes === 2, { what: "the hold" });
    const [hold] = await holds.list();
    asides.wishes.add(hold?.reason.position ?? "");
    holds.wanted.add("shop.public.orders");
    await eventually(() => holds.holds.size === 0, { what: "the release", deadlineMs: 20_000 });
    await put(client, "orders", 4);
    await eventually(() => ofLog(source.changes).includes("c orders 4"), { what: "what follows" });
    expect(ofLog(source.changes)).toEqual(["c orders 1", "aside orders", "c orders 3", "c orders 4"]);
    inOrder(source.changes.filter(({ topic }) => topic.name === "shop.public.orders"));
    expect(asides.letters).toMatchObject([{ position: hold?.reason.position }]);
    await source.close();
    await client.end();
  });

  test("is in no hold before it is on record: a task that ends there leaves it to the next one", async () => {
    const { client, asides, open, holding } = await scene(server());
    const { holds, settings } = holding();
    const first = await open({ undecodable: "stop" }, { holds: settings, acknowledging: false });
    await put(client, "orders", 1, UNREADABLE);
    await eventually(() => [...holds.holds.values()][0]?.changes === 1, { what: "the hold" });
    await first.close();
    const second = await open({}, { holds: settings, acknowledging: false });
    await eventually(() => asides.letters.length === 1, { what: "it to be put aside" });
    asides.writing = new CaptureLeaseLostError("shop", 1);
    await put(client, "orders", 2, UNREADABLE);
    expect(await second.failure()).toBe(asides.writing);
    await second.close();
    asides.writing = undefined;
    const third = await open({ undecodable: "stop", sqlAsciiEncoding: "latin1" }, { holds: settings });
    holds.wanted.add("shop.public.orders");
    await eventually(() => third.error ?? holds.holds.size === 0, {
      what: "the release",
      deadlineMs: 20_000,
    });
    expect(ofLog(third.changes)).toEqual(["aside orders", "c orders 2"]);
    expect(asides.letters).toHaveLength(1);
    await third.close();
    await client.end();
  });

  test("holds its topic instead where as many are on record as may be", async () => {
    const { client, asides, open, holding } = await scene(server());
    const { holds, settings } = holding();
    const source = await open(
      {},
      { asides: { record: asides, queue: asides, limit: 1 }, holds: settings, acknowledging: false },
    );
    await put(client, "orders", 1, UNREADABLE);
    await put(client, "orders", 2, UNREADABLE);
    await put(client, "items", 1);
    await eventually(() => [...holds.holds.values()][0]?.changes === 1, { what: "the hold" });
    expect(ofLog(source.changes)).toEqual(["aside orders", "c items 1"]);
    expect(asides.letters).toHaveLength(1);
    await source.close();
    await client.end();
  });

  test("may be of a table with a column whose name is no text: the others go on", async () => {
    const { client, asides, open } = await scene(server());
    const source = await open();
    await client.query(
      `DO $$ BEGIN EXECUTE 'ALTER TABLE public.orders RENAME v TO "v' || ${UNREADABLE} || '"'; END $$`,
    );
    await put(client, "orders", 1);
    await put(client, "items", 1);
    await eventually(() => ofLog(source.changes).length >= 2, { what: "both" });
    expect(ofLog(source.changes)).toEqual(["aside orders", "c items 1"]);
    expect(asides.letters).toMatchObject([{ error: { code: "NAME_ENCODING" }, table: "public.orders" }]);
    await source.close();
    await client.end();
  });
});
