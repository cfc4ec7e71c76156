import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { parseLsn } from "../../lib/change/lsn.ts";
import type { TableName } from "../../lib/change/table-pattern.ts";
import { TributaryError } from "../../lib/change/tributary-error.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { CaptureLeaseLostError } from "../../lib/source/capture-lease-lost.ts";
import {
  PublicationWatch,
  readPublicationOid,
} from "../../lib/source/postgres/contract/publication-watch.ts";
import type { PostgresSourceOptions } from "../../lib/source/postgres/postgres-source.ts";
import type { SlotState } from "../../lib/source/postgres/slot/slot-record.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { definition, ids, KeptLog, MemoryRecord, OpenSource, superuser } from "./source.ts";

const run = promisify(execFile);
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Server = Parameters<Parameters<typeof eachPostgres>[1]>[0];

async function shop(server: Server) {
  const url = await freshDatabase(server());
  const client = await superuser(url);
  cleanups.push(() => client.end().catch(() => {}));
  await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
  const pipeline = definition(url);
  const objects = async () =>
    (
      await client.query(
        "SELECT (SELECT count(*) FROM pg_publication)::int AS publications, (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())::int AS slots",
      )
    ).rows[0] as { publications: number; slots: number };
  return {
    url,
    client,
    pipeline,
    slot: pipeline.source.slot,
    publication: pipeline.source.publication,
    objects,
  };
}

async function open(url: string, options: Parameters<typeof OpenSource.open>[1] = {}): Promise<OpenSource> {
  const source = await OpenSource.open(url, options);
  cleanups.push(() => source.close());
  return source;
}

/** The code of the error that opening gives. */
async function refusal(url: string, options: Partial<PostgresSourceOptions> = {}): Promise<string> {
  try {
    await open(url, options);
    return "opened";
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    expect(error.remedy).toMatch(/\w/);
    return error.code;
  }
}

/** Opens, reads ten changes, closes: what a pipeline that ran before has left. */
async function ranBefore(server: Server) {
  const s = await shop(server);
  const record = new MemoryRecord();
  const source = await open(s.url, { record });
  await s.client.query("INSERT INTO orders SELECT generate_series(1, 10)");
  await source.until(10);
  await source.close();
  return { ...s, record };
}

eachPostgres("the first start", (server) => {
  test("makes publication and slot, and says so; the second finds them", async () => {
    const { url, client, record } = await ranBefore(server);
    await client.query("INSERT INTO orders VALUES (11)");
    const second = await open(url, { record });
    await second.until(1);
    expect(ids(second.changes)).toEqual([11]);
    expect(second.log.lines.join()).not.toMatch(/made the/);
    expect(record.state).toMatchObject({ epoch: 1, timeline: 1 });
  });

  test("under running writes every change behind the slot comes (publication first, slot second)", async () => {
    const { url, client } = await shop(server);
    let written = 0;
    let writing = true;
    const writer = (async () => {
      while (writing) await client.query("INSERT INTO orders VALUES ($1)", [++written]);
    })();
    const source = await open(url);
    await eventually(() => source.changes.length > 50, { what: "changes" });
    writing = false;
    await writer;
    await eventually(() => source.error ?? ids(source.changes).at(-1) === written, {
      what: "the last change",
    });
    expect(source.error).toBeUndefined();
    const got = ids(source.changes);
    expect(got).toEqual(got.map((_, i) => (got[0] as number) + i));
  });

  test("a table that comes later joins our own publication at the next start", async () => {
    const { url, client, record } = await ranBefore(server);
    await client.query("CREATE TABLE later (id int PRIMARY KEY)");
    const second = await open(url, { record });
    expect(second.log.lines.join()).toMatch(/changed the publication .*later/);
    await client.query("INSERT INTO later VALUES (5)");
    await second.until(1);
    expect(ids(second.changes)).toEqual([5]);
  });

  test("a task that lost its lease meanwhile leaves the publication as it is", async () => {
    const { url, client, record } = await ranBefore(server);
    await client.query("CREATE TABLE later (id int PRIMARY KEY)");
    const tables = async () =>
      (await client.query("SELECT tablename FROM pg_publication_tables")).rows.length;
    const before = await tables();
    record.failure = new Error("another task has the lease");
    await expect(open(url, { record })).rejects.toThrow("another task has the lease");
    expect(await tables()).toBe(before);
  });

  test("columns left out and rows filtered never leave the server; a changed filter counts from the next start", async () => {
    const { url, client } = await shop(server);
    await client.query("CREATE TABLE people (id int PRIMARY KEY, secret text)");
    const record = new MemoryRecord();
    const filtered = (where: string) =>
      definition(url, { excludeColumns: { "public.people": ["secret"] }, where: { "public.people": where } });
    const first = await open(url, { record, pipeline: filtered("id > 5") });
    await client.query("INSERT INTO people SELECT i, 'hush' FROM generate_series(4, 7) i");
    await first.until(2);
    expect(ids(first.changes)).toEqual([6, 7]);
    expect(first.changes.map((change) => change.json).join()).not.toMatch(/secret|hush/);
    await first.close();
    const same = await open(url, { record, pipeline: filtered("(id) > 5") });
    expect(same.log.lines.join()).not.toMatch(/changed/);
    await same.close();
    const second = await open(url, { record, pipeline: filtered("id > 100") });
    expect(second.log.lines.join()).toMatch(/changed the publication .*row filter/);
    await client.query("INSERT INTO people VALUES (50, 'hush'), (101, 'hush')");
    await second.until(1);
    expect(ids(second.changes)).toEqual([101]);
  });

  test("leaves nothing behind when the record cannot be written", async () => {
    const { url, objects } = await shop(server);
    const record = new MemoryRecord();
    record.failure = new Error("no table");
    await expect(open(url, { record })).rejects.toThrow("no table");
    expect(await objects()).toEqual({ publications: 0, slots: 0 });
  });

  test("keeps a publication that was there when its own attempt fails", async () => {
    const { url, client, publication, objects } = await shop(server);
    await client.query(`CREATE PUBLICATION ${publication} FOR TABLE orders`);
    const record = new MemoryRecord();
    record.failure = new Error("no table");
    await expect(open(url, { record })).rejects.toThrow("no table");
    expect(await objects()).toEqual({ publications: 1, slots: 0 });
  });

  test("does not wait for ever for an open transaction, and cleans up", async () => {
    const { url, client, objects } = await shop(server);
    await client.query("BEGIN; INSERT INTO orders VALUES (1)");
    const stop = new AbortController();
    const opening = open(url, { signal: stop.signal });
    const watcher = await superuser(url);
    cleanups.push(() => watcher.end());
    await eventually(
      async () =>
        (
          await watcher.query(
            "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE '%pg_create_logical%' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()",
          )
        ).rows[0].n === 1,
      { what: "the slot to wait for the transaction" },
    );
    stop.abort(new Error("enough"));
    await expect(opening).rejects.toThrow("enough");
    await client.query("COMMIT");
    await eventually(async () => (await objects()).slots === 0, { what: "the unfinished slot to go" });
    expect(await objects()).toEqual({ publications: 0, slots: 0 });
  });

  test("refuses a slot of others, takes one that nobody used, and reads any without a record", async () => {
    const { url, client, slot, publication, objects } = await shop(server);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    expect(await refusal(url)).toBe("SLOT_FOREIGN");
    expect(await objects()).toEqual({ publications: 0, slots: 1 });
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);

    await client.query(`CREATE PUBLICATION ${publication} FOR TABLE orders`);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    await client.query("INSERT INTO orders VALUES (1)");
    const unused = await open(url);
    await unused.until(1);
    await unused.close();
    await eventually(
      async () =>
        (
          await client.query(
            "SELECT total_txns::int AS n FROM pg_stat_replication_slots WHERE slot_name = $1",
            [slot],
          )
        ).rows[0].n > 0,
      { what: "the statistics of the slot" },
    );
    expect(await refusal(url)).toBe("SLOT_FOREIGN");
    await client.query("INSERT INTO orders VALUES (2)");
    const tail = await open(url, { record: undefined });
    await tail.until(1);
    expect(ids(tail.changes)).toEqual([2]);
  });
});

eachPostgres("a later start", (server) => {
  test("stops at a slot that someone advanced", async () => {
    const { url, client, slot, record } = await ranBefore(server);
    await client.query("INSERT INTO orders VALUES (11)");
    await client.query("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", [slot]);
    expect(await refusal(url, { record })).toBe("SLOT_AHEAD");
    // Its successor advanced it.
    record.failure = new CaptureLeaseLostError("shop", 1);
    expect(await refusal(url, { record })).toBe("CAPTURE_LEASE_LOST");
  });

  test("stops at a slot that was dropped, and at one made anew", async () => {
    const { url, client, slot, record } = await ranBefore(server);
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    expect(await refusal(url, { record })).toBe("SLOT_MISSING");
    await client.query("INSERT INTO orders VALUES (11)");
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    expect(await refusal(url, { record })).toBe("SLOT_AHEAD");
  });

  test("stops at another plugin, another cluster, a dropped publication, other names", async () => {
    const { url, client, slot, publication, record } = await ranBefore(server);
    const state = record.state as SlotState;
    expect(await refusal(url, { record: new MemoryRecord({ ...state, systemId: "1" }) })).toBe(
      "OTHER_SYSTEM",
    );
    expect(await refusal(url, { record: new MemoryRecord({ ...state, slot: "other" }) })).toBe(
      "SLOT_SETTINGS_CHANGED",
    );
    expect(await refusal(url, { record: new MemoryRecord({ ...state, database: "other" }) })).toBe(
      "SLOT_SETTINGS_CHANGED",
    );
    expect(await refusal(url, { record: new MemoryRecord({ ...state, confirmedLsn: 1n << 60n }) })).toBe(
      "SERVER_BEHIND",
    );
    await client.query(`DROP PUBLICATION ${publication}`);
    expect(await refusal(url, { record })).toBe("PREFLIGHT");
    await client.query(`CREATE PUBLICATION ${publication} FOR TABLE orders`);
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", [slot]);
    expect(await refusal(url, { record })).toBe("SLOT_FOREIGN");
  });

  test("stops at a publication that was made anew: on 18 the server hides the gap", async () => {
    const { url, client, publication, record } = await ranBefore(server);
    await client.query(`DROP PUBLICATION ${publication}`);
    await client.query("INSERT INTO orders VALUES (11)");
    await client.query(`CREATE PUBLICATION ${publication} FOR TABLE ONLY orders`);
    expect(await refusal(url, { record })).toBe("PUBLICATION_REPLACED");
    expect(await refusal(url, { record })).toBe("PUBLICATION_REPLACED");
  });

  test("a record without the publication's OID takes it on", async () => {
    const { url, client, publication, record } = await ranBefore(server);
    const { publicationOid, ...before } = record.state as SlotState;
    record.state = before;
    const source = await open(url, { record });
    await client.query("INSERT INTO orders VALUES (11)");
    await source.until(1);
    await source.close();
    expect(record.state.publicationOid).toBe(publicationOid);
    await client.query(
      `DROP PUBLICATION ${publication}; CREATE PUBLICATION ${publication} FOR TABLE ONLY orders`,
    );
    expect(await refusal(url, { record })).toBe("PUBLICATION_REPLACED");
  });

  test("a publication made anew under a running stream ends it", async () => {
    const { url, client, publication } = await shop(server);
    const source = await open(url, { walSenderTimeoutMs: 2000 });
    await client.query(
      `DROP PUBLICATION ${publication}; CREATE PUBLICATION ${publication} FOR TABLE ONLY orders`,
    );
    expect(await source.failure()).toMatchObject({ code: "PUBLICATION_REPLACED", retry: "stop" });
  });

  test("a captured table that leaves the publication is told, once", async () => {
    const { client } = await shop(server);
    await client.query("CREATE TABLE other (id int); CREATE PUBLICATION watched FOR TABLE orders, other");
    const log = new KeptLog();
    const query = (sql: string) => client.query(sql);
    const oid = await readPublicationOid(query, "watched");
    const captures = ({ table }: TableName) => table === "orders";
    const watch = new PublicationWatch({ name: "watched", oid, captures, query, log });
    await watch.look();
    // Made anew by a migration: the publication does not hold the new one.
    await client.query("DROP TABLE orders, other; CREATE TABLE orders (id int PRIMARY KEY)");
    await watch.look();
    await watch.look();
    expect(log.lines).toEqual([expect.stringMatching(/^public\.orders left the publication "watched"/)]);
  });

  test("a captured table that moved to the publication of another slot is nobody's loss", async () => {
    const { client } = await shop(server);
    await client.query("CREATE PUBLICATION one FOR TABLE orders; CREATE PUBLICATION two");
    const [log, losses] = [new KeptLog(), [] as unknown[]];
    const query = (sql: string) => client.query(sql);
    const watch = new PublicationWatch({
      ...{ name: "one", oid: await readPublicationOid(query, "one"), captures: () => true, query, log },
      others: ["two"],
      note: async (found) => void losses.push(...found),
    });
    await watch.look();
    await client.query("ALTER PUBLICATION one DROP TABLE orders; ALTER PUBLICATION two ADD TABLE orders");
    await watch.look();
    expect([...losses, ...log.lines]).toEqual([]);
  });

  test("stops at a replay that is not what was there", async () => {
    const { url, client, slot, record } = await ranBefore(server);
    await client.query("INSERT INTO orders VALUES (11)");
    const second = await open(url, { record });
    await second.until(1);
    await second.close();
    const state = record.state as SlotState;
    const [latest] = state.recentCommits.slice(-1);
    // As if the server had forgotten the last confirmation, which it may, and told another story, which it may not.
    await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    await client.query("INSERT INTO orders VALUES (12)");
    const { rows } = await client.query("SELECT pg_current_wal_lsn()::text AS lsn");
    expect(rows.length).toBe(1);
    const forged = new MemoryRecord({
      ...state,
      confirmedLsn: state.confirmedLsn + (1n << 12n),
      recentCommits: [
        { ...(latest as SlotState["recentCommits"][number]), commitLsn: state.confirmedLsn + (1n << 11n) },
      ],
    });
    await client.query("INSERT INTO orders SELECT generate_series(100, 400)");
    const source = await open(url, { record: forged });
    expect(await source.failure()).toMatchObject({ code: "HISTORY_FORKED", retry: "stop" });
    const after = await client.query(
      "SELECT confirmed_flush_lsn < $2::pg_lsn AS kept FROM pg_replication_slots WHERE slot_name = $1",
      [slot, rows[0].lsn],
    );
    expect(after.rows[0].kept).toBe(true);
  });

  test("waits for a slot in use, takes it when it is free, and names the holder when it is not", async () => {
    const { url, client, slot, record } = await ranBefore(server);
    const holder = await open(url, { record, acknowledging: false });
    await expect(
      open(url, { record: new MemoryRecord(record.state), takeoverMs: 300 }),
    ).rejects.toMatchObject({
      code: "SLOT_IN_USE",
      retry: "restart",
      message: expect.stringMatching(/process \d+ \("tributary"\)/),
    });
    const log = new KeptLog();
    const waiting = open(url, { record: new MemoryRecord(record.state), log });
    await client.query("INSERT INTO orders VALUES (11)");
    await eventually(() => log.lines.join().includes(`"${slot}" is in use by process`), {
      what: "the wait to be told",
    });
    await holder.until(1);
    await holder.close();
    const next = await waiting;
    await next.until(1);
    expect(ids(next.changes)).toEqual([11]);
  });

  test.each([
    ["an older record of the same slot", (state: SlotState) => new MemoryRecord(state)],
    ["a record of its own, still empty", () => new MemoryRecord()],
    ["no record, as tail", () => undefined],
  ])("a second reader with %s is told who reads, never to begin a new epoch", async (_, recordOf) => {
    const { url, client, slot, record } = await ranBefore(server);
    const old = structuredClone(record.state as SlotState);
    const first = await open(url, { record });
    await client.query("INSERT INTO orders SELECT generate_series(11, 20)");
    await first.until(10);
    const look = async () => {
      const { rows } = await client.query<{ lsn: string; pid: number }>(
        "SELECT confirmed_flush_lsn AS lsn, active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1",
        [slot],
      );
      return rows[0] as (typeof rows)[number];
    };
    await eventually(async () => parseLsn((await look()).lsn) > old.confirmedLsn, {
      what: "the slot to move on from what the second reader knows",
    });
    const { pid } = await look();
    const began = performance.now();
    const error = await open(url, { record: recordOf(old), takeoverMs: 0 }).catch((e) => e);
    expect(error).toMatchObject({ code: "SLOT_IN_USE", retry: "restart" });
    expect(error.message).toContain(`process ${pid}`);
    expect(`${error.message} ${error.remedy}`).not.toMatch(/epoch|drop/);
    expect(performance.now() - began).toBeLessThan(10_000);
    await client.query("INSERT INTO orders VALUES (21)");
    await first.until(11);
    expect(first.error).toBeUndefined();
  });

  test("a slot dropped under a running stream stops it", async () => {
    const { url, client, slot, record } = await ranBefore(server);
    const source = await open(url, { record });
    // In one statement each: between the end of the walsender and our next attempt there is a moment.
    await eventually(
      async () => {
        await client.query(
          "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active",
          [slot],
        );
        await client.query("SELECT pg_drop_replication_slot($1)", [slot]);
        return true;
      },
      { what: "the slot to be dropped in a free moment" },
    );
    expect(await source.failure()).toMatchObject({ code: "SLOT_MISSING" });
  });
});

describe("WAL that is gone", () => {
  withPostgres(
    (server) => {
      test("a lost slot stops with what happened and what to do", async () => {
        const { url, client, slot, record } = await ranBefore(server);
        await client.query("CREATE TABLE noise (t text)");
        await eventually(
          async () => {
            await client.query(
              "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 5000); SELECT pg_switch_wal()",
            );
            await client.query("CHECKPOINT");
            const { rows } = await client.query(
              "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1",
              [slot],
            );
            return rows[0].wal_status === "lost";
          },
          { what: "the slot to be lost" },
        );
        await client.query("DROP TABLE noise");
        expect(await refusal(url, { record })).toBe("SLOT_LOST");
      });
    },
    { settings: { max_slot_wal_keep_size: "4MB", max_wal_size: "32MB", min_wal_size: "32MB" } },
  );
});

describe("a database restored from an older copy", () => {
  withPostgres((server) => {
    test("behind what we confirmed, and then written past it: both stop", async () => {
      const { url, client, record } = await ranBefore(server);
      const admin = await superuser(server().url);
      await admin.query("CHECKPOINT");
      await admin.end();
      // A crash-consistent copy of the files, as a snapshot of the disk would be.
      const parent = await mkdtemp(join(tmpdir(), "tributary-copy-"));
      cleanups.push(() => rm(parent, { recursive: true, force: true }));
      const copy = join(parent, "data");
      await client.query("SELECT pg_switch_wal()");
      await client.query("CHECKPOINT");
      await run("cp", ["-a", server().dataDirectory, copy]);
      await rm(join(copy, "postmaster.pid"), { force: true });
      await rm(join(copy, "tributary.owner"), { force: true });

      const source = await open(url, { record });
      await client.query("INSERT INTO orders SELECT generate_series(11, 2000)");
      await source.until(1990);
      await source.close();

      await run("chmod", ["755", parent]);
      const restored = await startEmbeddedPostgres({ dataDirectory: copy, durable: false });
      cleanups.push(() => restored.stop("immediate"));
      const restoredUrl = new URL(url);
      restoredUrl.port = String(restored.port);
      expect(await refusal(restoredUrl.toString(), { record })).toBe("SERVER_BEHIND");

      const theirs = await superuser(restoredUrl.toString());
      cleanups.push(() => theirs.end().catch(() => {}));
      await theirs.query("CREATE TABLE other (id int PRIMARY KEY, t text)");
      await theirs.query("INSERT INTO orders SELECT generate_series(3000, 8000)");
      await theirs.query("INSERT INTO orders SELECT generate_series(9000, 12000)");
      const forked = await open(restoredUrl.toString(), { record });
      expect(await forked.failure()).toMatchObject({ code: "HISTORY_FORKED" });
      expect(forked.changes).toEqual([]);
    });
  });
});
