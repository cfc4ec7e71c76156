import { expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, rowsGiven, waitsFor } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

const MIB = 1024 * 1024;
const KEPT = 32 * MIB;

eachPostgres(
  "what holds a backfill back",
  (server) => {
    /** Two tables, of which one is read at a time; nothing is asked for. */
    async function opened(acknowledging = true) {
      const url = await freshDatabase(server(), { settings: { statement_timeout: "1s" } });
      const sql = await superuser(url);
      await sql.query("SET statement_timeout = 0");
      await sql.query(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 10); INSERT INTO b TABLE a",
      );
      const record = new MemoryBackfills();
      const open = await OpenSource.open(url, {
        pipeline: definition(url, { snapshot: "never", backfill: { tablesAtOnce: 1 } }),
        acknowledging,
        walSenderTimeoutMs: 1_000,
        backfill: { record, pollMs: 20 },
      });
      const request = (table: string, where?: string) =>
        record.request(table, { where, sweep: false, requestedAt: Date.now() });
      const begun = (table: string, times = 1) =>
        eventually(() => open.log.lines.filter((line) => line.includes(`${table} begins`)).length === times, {
          what: `${table} to begin`,
          deadlineMs: 20_000,
        });
      return { url, sql, record, open, request, begun };
    }

    test("too much WAL: reading waits and says so, one that is cancelled makes room, and all goes on by itself", async () => {
      const { sql, record, open, request, begun } = await opened(false);
      await sql.query(
        "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1024 * 1024)) FROM generate_series(1, 20)",
      );
      // All of it: half of what is allowed is a little more than half of what is kept.
      await eventually(() => (open.status?.walHeldBytes ?? 0) >= 20 * MIB, { what: "the slot to be seen" });
      await request("public.a");
      await waitsFor(record, "public.a", /holds back more than half of the WAL/);
      record.want("public.a", "cancel");
      await ended(record, "public.a", open, "cancelled");
      expect(record.of("public.a").progress?.reason).toBeUndefined();
      await request("public.b");
      await begun("public.b");
      await waitsFor(record, "public.b", /holds back more than half of the WAL/);
      expect(rowsGiven(open)).toBe(0);
      open.acknowledging = true;
      let id = 100;
      await eventually(
        async () => {
          await sql.query(`INSERT INTO a VALUES (${id++})`);
          await sql.query("CHECKPOINT");
          return (open.status?.walHeldBytes ?? KEPT) < KEPT / 2;
        },
        { what: "WAL to be released" },
      );
      await ended(record, "public.b", open);
      expect(rowsGiven(open)).toBe(10);
      expect(record.of("public.b").progress?.reason).toBeUndefined();
      await open.close();
      await sql.end();
    });

    test("one that waits for an old transaction makes room when it is cancelled or paused, and begins at once when asked", async () => {
      const { url, sql, record, open, request, begun } = await opened();
      const old = await superuser(url);
      await old.query("BEGIN; SELECT pg_current_xact_id()");
      await request("public.a");
      await waitsFor(record, "public.a", /transactions that were open/);
      record.want("public.a", "cancel");
      await ended(record, "public.a", open, "cancelled");
      await request("public.b");
      await begun("public.b");
      await request("public.a");
      record.want("public.b", "pause");
      await ended(record, "public.b", open, "paused");
      await begun("public.a", 2);
      expect(rowsGiven(open)).toBe(0);
      await old.query("COMMIT");
      await ended(record, "public.a", open);
      record.want("public.b", "run");
      await ended(record, "public.b", open);
      expect(rowsGiven(open)).toBe(20);
      await old.end();
      await open.close();
      await sql.end();
    });

    test("a query that runs long ends at the server too when its backfill is cancelled, and not at a statement timeout", async () => {
      const { sql, record, open, request, begun } = await opened();
      const reading = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'";
      await request("public.a", "pg_sleep(600) IS NOT NULL");
      await eventually(async () => (await sql.query(reading)).rowCount === 1, { what: "the query" });
      record.want("public.a", "cancel");
      await eventually(async () => (await sql.query(reading)).rowCount === 0, {
        what: "its end",
        deadlineMs: 20_000,
      });
      await ended(record, "public.a", open, "cancelled");
      // Longer than the database lets statements of others run.
      await request("public.b", "pg_sleep(0.15) IS NOT NULL");
      await begun("public.b");
      await ended(record, "public.b", open);
      expect(rowsGiven(open)).toBe(10);
      await open.close();
      await sql.end();
    });
  },
  {
    // Segments of 1 MiB: what a slot holds back is told in whole ones.
    initdbArguments: ["--wal-segsize=1"],
    settings: { max_slot_wal_keep_size: "32MB", min_wal_size: "2MB" },
  },
);
