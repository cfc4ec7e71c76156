import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { EmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { Standby } from "../../lib/source/postgres/backfill/standby.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay, rowsGiven, waitsFor } from "./backfill-replay.ts";
import { contradictions, ROWS, SETUP, workload } from "./backfill-workload.ts";
import { MemoryRereads } from "./reread-record.ts";
import { freshDatabase, withPostgres } from "./server.ts";
import { definition, inOrder, OpenSource, superuser } from "./source.ts";
import { startStandby } from "./standby.ts";

const SMALL = { ms: 10, bytes: 20_000, firstRows: 5 };
/** A standby that soon gives way to the log, and looks for its primary often. */
const IMPATIENT = { max_standby_streaming_delay: "1s", wal_retrieve_retry_interval: "100ms" };

describe("backfill off a standby", () =>
  withPostgres((server) => {
    let standby: EmbeddedPostgres;
    /** A superuser of the standby. */
    let control: pg.Client;
    beforeAll(async () => {
      standby = await startStandby(server(), IMPATIENT);
      control = await superuser(standby.url);
    });
    afterAll(async () => {
      await control?.end();
      await standby?.stop("immediate");
    });

    /** The same database on the standby. */
    const there = (url: string) => Object.assign(new URL(url), { port: String(standby.port) }).toString();

    async function replayed(sql: pg.Client): Promise<void> {
      const { rows } = await sql.query("SELECT pg_current_wal_flush_lsn()::text AS lsn");
      await eventually(
        async () =>
          (await control.query(`SELECT pg_last_wal_replay_lsn() >= '${rows[0].lsn}' AS here`)).rows[0].here,
        { what: "the standby to catch up" },
      );
    }

    async function pause(): Promise<void> {
      await control.query("SELECT pg_wal_replay_pause()");
      await eventually(
        async () =>
          (await control.query("SELECT pg_get_wal_replay_pause_state() AS state")).rows[0].state === "paused",
        { what: "the replay to be paused" },
      );
    }

    const resume = () => control.query("SELECT pg_wal_replay_resume()");

    /** A database on both servers, and a source whose backfills read off the standby. */
    async function opened(
      setup: string,
      source: Parameters<typeof definition>[1] = { snapshot: "never" },
      first: () => Promise<unknown> = async () => {},
    ) {
      const url = await freshDatabase(server());
      const sql = await superuser(url);
      await replayed(sql);
      await first();
      await sql.query(setup);
      const record = new MemoryBackfills();
      const rereads = new MemoryRereads();
      const open = await OpenSource.open(url, {
        pipeline: definition(url, source),
        backfill: { record, rereads, pollMs: 20, goal: SMALL, standby: connectionFromUrl(there(url)) },
      });
      const request = (table: string, where?: string) =>
        record.request(table, { where, sweep: false, requestedAt: 1 });
      const close = async () => {
        await open.close();
        await sql.end();
      };
      return { url, sql, record, open, request, close };
    }

    test("under load, and with its replay held back in the middle, what a consumer holds is the table", async () => {
      const { url, sql, record, open, request, close } = await opened(SETUP, {
        snapshot: "never",
        backfill: { rowsPerSecond: 400 },
      });
      const stop = new AbortController();
      const sessions = [1, 2].map((i) => workload(url, 70 + i, stop.signal));
      await request("public.load");
      await eventually(() => rowsGiven(open) > 10, { what: "some rows" });
      await pause();
      await waitsFor(record, "public.load", /standby/);
      const [rows, changes] = [rowsGiven(open), open.changes.length];
      await open.until(changes + 100);
      expect(rowsGiven(open)).toBe(rows);
      await resume();
      await ended(record, "public.load", open);
      stop.abort();
      await Promise.all(sessions);
      await sql.query("INSERT INTO load VALUES (1000000, 0, 'last', '')");
      await eventually(() => open.changes.some(({ json }) => json.includes('"id":"1000000"')), {
        what: "the last",
      });
      const whole = () =>
        [...replay(open.changes, "public.load").values()].every((row) => row.long !== undefined);
      await eventually(whole, { what: "the rows that are read again", deadlineMs: 20_000 });
      const held = [...replay(open.changes, "public.load").values()];
      const table = await sql.query("SELECT id::text AS id, version::text AS version, short, long FROM load");
      await close();
      inOrder(open.changes);
      const { told, wrong } = contradictions(open.changes);
      expect(wrong).toEqual([]);
      expect(told).toBeGreaterThan(ROWS / 4);
      const byId = (a: { id?: unknown }, b: { id?: unknown }) => Number(a.id) - Number(b.id);
      expect(held.sort(byId)).toEqual(table.rows.sort(byId));
      expect(record.of("public.load").progress?.reason).toBeUndefined();
    });

    test("a table that the standby has not heard of is waited for, not refused", async () => {
      const { record, open, request, close } = await opened(
        "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 20)",
        { snapshot: "never" },
        pause,
      );
      await request("public.late");
      await eventually(() => open.log.lines.some((line) => line.includes("public.late begins")), {
        what: "it to begin",
      });
      await resume();
      await ended(record, "public.late", open);
      expect(rowsGiven(open)).toBe(20);
      await close();
    });

    test("the replay is waited for: no older row over a newer change, as there would be without", async () => {
      for (const waiting of [true, false]) {
        const { sql, record, open, request, close } = await opened(
          "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (5, 1)",
        );
        const naive = waiting ? undefined : vi.spyOn(Standby.prototype, "replayed").mockResolvedValue();
        await replayed(sql);
        await pause();
        await sql.query("UPDATE t SET n = 2");
        await open.until(1);
        await request("public.t");
        if (waiting)
          await waitsFor(record, "public.t", /the standby has replayed the log up to .*, not yet up to/);
        else await ended(record, "public.t", open);
        await resume();
        await ended(record, "public.t", open);
        naive?.mockRestore();
        await close();
        const told = open.changes.map(parsed).filter(({ op }) => op !== "m");
        expect(told.map(({ op, after }) => `${op}${after?.n}`)).toEqual(["u2", waiting ? "r2" : "r1"]);
      }
    });

    test("a query that recovery cancels is made again", async () => {
      const { sql, record, open, request, close } = await opened(`
      CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 8);
      CREATE TABLE pace (id int PRIMARY KEY DEFAULT 1, seconds float8); INSERT INTO pace (seconds) VALUES (60)`);
      await replayed(sql);
      await request("public.t", "pg_sleep((SELECT seconds FROM public.pace)) IS NOT NULL");
      const reading = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'";
      await eventually(async () => (await control.query(reading)).rowCount === 1, {
        what: "the chunk to be read",
      });
      await sql.query("UPDATE pace SET seconds = 0");
      await sql.query("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; COMMIT");
      await ended(record, "public.t", open);
      expect(rowsGiven(open)).toBe(8);
      expect(open.log.lines.join("\n")).toMatch(
        /tries again: canceling statement due to conflict with recovery/,
      );
      await close();
    });

    test("a standby that goes away in the middle is waited for: the stream goes on, and every row comes", async () => {
      const { sql, record, open, request, close } = await opened(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 300) i",
        { snapshot: "never", backfill: { rowsPerSecond: 300 } },
      );
      await request("public.t");
      await eventually(() => rowsGiven(open) > 10, { what: "some rows" });
      await control.end();
      await standby.kill();
      await waitsFor(record, "public.t", /tries again/);
      const before = rowsGiven(open);
      await sql.query("UPDATE t SET n = 1 WHERE id % 7 = 0");
      await eventually(() => open.changes.filter(({ json }) => json.includes('"n":1')).length === 42, {
        what: "the stream to go on",
      });
      expect(rowsGiven(open)).toBe(before);
      await standby.restart();
      control = await superuser(standby.url);
      await ended(record, "public.t", open);
      const { rows } = await sql.query("SELECT id, n FROM t ORDER BY id");
      const held = [...replay(open.changes, "public.t").values()];
      expect(held.sort((a, b) => Number(a.id) - Number(b.id))).toEqual(rows);
      await close();
    });

    test("a standby of another history is not read: it does not follow a new primary, or was promoted", async () => {
      const { url, record, open, request, close } = await opened(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5)",
      );
      const primary = await startStandby(server());
      const promoted = Object.assign(new URL(url), { port: String(primary.port) }).toString();
      const sql = await superuser(promoted);
      await sql.query("SELECT pg_promote()");
      const backfills = new MemoryBackfills();
      const other = await OpenSource.open(promoted, {
        pipeline: definition(promoted, { slot: "after", publication: "after" }),
        backfill: { record: backfills, pollMs: 20, standby: connectionFromUrl(there(url)) },
      });
      await waitsFor(backfills, "public.t", /timeline 1, the primary on 2/);
      expect(rowsGiven(other)).toBe(0);
      await other.close();

      // And the other way round: a standby of a server that was promoted beside the primary.
      await sql.query("DELETE FROM t");
      await sql.end();
      const fork = await startStandby(primary);
      const forked = Object.assign(new URL(url), { port: String(fork.port) }).toString();
      const rest = new MemoryBackfills();
      const third = await OpenSource.open(url, {
        pipeline: definition(url, { slot: "beside", publication: "beside" }),
        backfill: { record: rest, pollMs: 20, standby: connectionFromUrl(forked) },
      });
      await waitsFor(rest, "public.t", /timeline 2, the primary on 1/);
      expect(rowsGiven(third)).toBe(0);
      await third.close();
      await fork.stop("immediate");
      await primary.stop("immediate");

      await control.query("SELECT pg_promote()");
      await request("public.t");
      await ended(record, "public.t", open, "refused");
      expect(record.of("public.t").progress?.reason).toMatch(/was promoted/);
      expect(rowsGiven(open)).toBe(0);
      await close();
    });
  }));
