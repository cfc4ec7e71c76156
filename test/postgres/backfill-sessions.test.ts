import { expect, test } from "vitest";
import { SecretChangedError, SecretFormatError } from "../../lib/credentials/credential-errors.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, replay, rowsGiven, waitsFor } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

/** A few rows a chunk, so that a backfill has a middle. */
const SMALL = { ms: 1_000, bytes: 3_000, firstRows: 20 };
/** All but the stream's, which would meet the same error by itself. */
const CUT_SESSIONS =
  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name LIKE 'tributary%'";

eachPostgres("sessions that cannot be opened", (server) => {
  /** A backfill in its middle, whose next session the password's provider refuses as long as `failure` is set. */
  async function inTheMiddle() {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i",
    );
    const provider: { failure: Error | undefined } = { failure: undefined };
    const plain = connectionFromUrl(url);
    const password = async () => {
      if (provider.failure) throw provider.failure;
      return typeof plain.password === "string" ? plain.password : plain.password();
    };
    const record = new MemoryBackfills();
    const slot = new MemoryRecord();
    const pipeline = definition(url, { backfill: { rowsPerSecond: 800 } });
    const open = (connection = plain) =>
      OpenSource.open(url, {
        connection,
        record: slot,
        pipeline,
        backfill: { record, pollMs: 20, goal: SMALL },
      });
    const first = await open({ ...plain, password });
    await eventually(() => rowsGiven(first) >= 100, { what: "its first rows", deadlineMs: 20_000 });
    return { sql, provider, record, first, open };
  }

  test("a secret of another user ends the task, as it must, and no backfill: the next one goes on", async () => {
    const { sql, provider, record, first, open } = await inTheMiddle();
    provider.failure = new SecretChangedError("arn:secret", "user");
    await sql.query(CUT_SESSIONS);
    await eventually(() => first.error !== undefined, { what: "the task's end", deadlineMs: 20_000 });
    expect(first.error).toBeInstanceOf(SecretChangedError);
    await first.close();
    expect(record.of("public.t").status).toBe("running");
    const again = await open();
    await ended(record, "public.t", again);
    expect(replay([...first.changes, ...again.changes], "public.t").size).toBe(2000);
    expect(record.of("public.t").run).toBe(1);
    await again.close();
    await sql.end();
  });

  test("a secret that is not readable just now says nothing of a table: its backfill is not refused", async () => {
    const { sql, provider, record, first, open } = await inTheMiddle();
    provider.failure = new SecretFormatError("arn:secret", "not JSON");
    await sql.query(CUT_SESSIONS);
    await eventually(
      () => first.error !== undefined || /^tries again: /.test(record.of("public.t").progress?.reason ?? ""),
      { what: "the task's end, or the backfill's wait", deadlineMs: 20_000 },
    );
    expect(record.of("public.t").status).toBe("running");
    await first.close();
    const again = await open();
    await ended(record, "public.t", again);
    expect(replay([...first.changes, ...again.changes], "public.t").size).toBe(2000);
    await again.close();
    await sql.end();
  });

  test("a role that may not connect just now: the backfill waits, says for what, and goes on", async () => {
    const { sql, record, first } = await inTheMiddle();
    const { rows } = await sql.query("SELECT current_database() AS name");
    await sql.query(`UPDATE pg_database SET datallowconn = false WHERE datname = '${rows[0].name}'`);
    await sql.query(CUT_SESSIONS);
    await waitsFor(record, "public.t", /^tries again: /);
    expect(record.of("public.t").status).toBe("running");
    await sql.query(`UPDATE pg_database SET datallowconn = true WHERE datname = '${rows[0].name}'`);
    await ended(record, "public.t", first);
    expect(replay(first.changes, "public.t").size).toBe(2000);
    await first.close();
    await sql.end();
  });
});
