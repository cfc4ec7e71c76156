import type pg from "pg";
import { expect, test } from "vitest";
import { connect, connectionFromUrl, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { CopyBoth } from "../../lib/source/postgres/link/copy-both.ts";
import { standbyStatusUpdate } from "../../lib/source/postgres/link/feedback.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

const LATE_MS = 30;

/** A synchronous standby that says what it has only now and then: commits become visible so much later than they are streamed. */
class SlowStandby {
  readonly #client: pg.Client;
  readonly #timer: NodeJS.Timeout;

  private constructor(client: pg.Client, timer: NodeJS.Timeout) {
    this.#client = client;
    this.#timer = timer;
  }

  static async open(url: string, acks: pg.Client, sql: pg.Client): Promise<SlowStandby> {
    const end = async () =>
      BigInt((await acks.query("SELECT pg_current_wal_flush_lsn() - '0/0' AS lsn")).rows[0].lsn);
    const client = await connect(
      { ...connectionFromUrl(url), applicationName: "slow" },
      { replication: true },
    );
    const started = Promise.withResolvers<void>();
    const { rows } = await client.query("IDENTIFY_SYSTEM");
    const copy: CopyBoth = new CopyBoth(`START_REPLICATION PHYSICAL ${rows[0].xlogpos}`, {
      onStart: () => started.resolve(),
      onArrival: () => {
        while (copy.next());
      },
      onEnd: () => {},
      onFinish: () => {},
      onError: (error) => started.reject(error),
    });
    client.query(copy);
    await started.promise;
    let asking = false;
    const timer = setInterval(async () => {
      if (asking) return;
      asking = true;
      const lsn = await end().catch(() => 0n);
      asking = false;
      setTimeout(() => {
        copy.send(
          standbyStatusUpdate({ written: lsn, confirmed: lsn, nowMs: Date.now(), replyRequested: false }),
        );
      }, LATE_MS);
    }, 2);
    await sql.query("ALTER SYSTEM SET synchronous_standby_names = 'slow'");
    await sql.query("SELECT pg_reload_conf()");
    return new SlowStandby(client, timer);
  }

  async close(sql: pg.Client): Promise<void> {
    await sql.query("ALTER SYSTEM RESET synchronous_standby_names");
    await sql.query("SELECT pg_reload_conf()");
    clearInterval(this.#timer);
    await disconnect(this.#client);
  }
}

eachPostgres("backfill beside a synchronous standby", (server) => {
  test("commits that are always streamed before they are visible do not keep it from its end", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE held (id bigint PRIMARY KEY); INSERT INTO held SELECT generate_series(1, 5000); CREATE TABLE busy (id int PRIMARY KEY, n int); INSERT INTO busy SELECT i, 0 FROM generate_series(1, 8) i",
    );
    const acks = await superuser(url);
    const control = await superuser(url);
    const standby = await SlowStandby.open(url, acks, control);
    const writers = await Promise.all(Array.from({ length: 8 }, () => superuser(url)));
    let writing = true;
    const write = writers.map(async (writer, i) => {
      await new Promise((resolve) => setTimeout(resolve, i * 4));
      while (writing) await writer.query("UPDATE busy SET n = n + 1 WHERE id = $1", [i + 1]);
    });
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url, { snapshot: "never" }),
      backfill: { record, pollMs: 20, goal: { firstRows: 100, bytes: 1_000 } },
    });
    await record.request("public.held", { sweep: false, requestedAt: 0 });
    try {
      await ended(record, "public.held", source);
    } finally {
      writing = false;
      await standby.close(control);
      await Promise.all(write);
      for (const client of [...writers, acks, control, sql]) await client.end();
      await source.close();
    }
    expect(
      source.changes
        .filter(({ table }) => table === "public.held")
        .map(parsed)
        .filter(({ op }) => op === "r").length,
    ).toBe(5000);
  });
});
