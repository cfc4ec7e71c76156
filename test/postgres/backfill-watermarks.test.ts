import { expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

/** The filter below waits for it, when the chunk's snapshot has been taken. */
const GATE = 4711;

eachPostgres("the window of a chunk", (server) => {
  test.each([{ slot: "of_another_slot" }, { task: "of a task that was killed" }])(
    "is not opened anew by a low watermark with %j: what came before in it still counts",
    async (other) => {
      const url = await freshDatabase(server());
      const [sql, gate] = await Promise.all([superuser(url), superuser(url)]);
      await sql.query(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 1 FROM generate_series(1, 9) i",
      );
      const watch = `watch_${new URL(url).pathname.slice(1)}`;
      await sql.query("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", [watch]);
      const record = new MemoryBackfills();
      const source = await OpenSource.open(url, {
        pipeline: definition(url, { snapshot: "never" }),
        backfill: { record, pollMs: 20 },
      });
      await gate.query(`SELECT pg_advisory_lock(${GATE})`);
      const where = `pg_advisory_xact_lock_shared(${GATE})::text = ''`;
      await record.request("public.t", { where, sweep: false, requestedAt: 1 });
      const waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
      await eventually(async () => (await sql.query(waiting)).rows.length > 0, {
        what: "the rows to be read",
      });
      await sql.query("UPDATE t SET v = 2 WHERE id = 5");
      const { rows } = await sql.query<{ data: string }>(
        "SELECT data FROM pg_logical_slot_peek_changes($1, NULL, NULL) WHERE data LIKE '%tributary.low%'",
        [watch],
      );
      const own = JSON.parse(/content:(\{.*\})/.exec(rows.at(-1)?.data ?? "")?.[1] ?? "");
      await sql.query("SELECT pg_logical_emit_message(false, 'tributary.low', $1::text)", [
        JSON.stringify({ ...own, ...other }),
      ]);
      await gate.query(`SELECT pg_advisory_unlock(${GATE})`);
      await ended(record, "public.t", source);
      const told = source.changes.map(parsed).filter(({ after }) => after?.id === 5);
      expect(told.map(({ op, after }) => `${op}${after?.v}`)).toEqual(["u2"]);
      await source.close();
      await sql.query("SELECT pg_drop_replication_slot($1)", [watch]);
      await Promise.all([sql.end(), gate.end()]);
    },
  );
});
