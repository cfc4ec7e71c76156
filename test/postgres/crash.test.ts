import type pg from "pg";
import { describe, expect, test } from "vitest";
import { type PipelineOf, polling, triggers } from "../../lib/definition/pipeline.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import type { TriggersSource } from "../../lib/source/triggers/definition.ts";
import { installTriggers } from "../../lib/source/triggers/triggers.ts";
import { installed } from "./server.ts";
import { superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";

const KINDS = {
  triggers: definitionOf(triggers({ tables: ["public.*"], intervalMs: 50 })),
  polling: definitionOf(polling({ tables: ["public.*"], intervalMs: 50 })),
};

/** Runs on a server whose log is written to disk by commits alone, with a table that can be read in both ways. */
async function onServer(
  { binaries }: (typeof installed)[number],
  use: (server: EmbeddedPostgres) => Promise<void>,
): Promise<void> {
  const server = await startEmbeddedPostgres(binaries ? { binaries } : {});
  const client = await superuser(server.url);
  try {
    await client.query(
      "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON t (updated_at, id)",
    );
    await installTriggers(client, KINDS.triggers as PipelineOf<TriggersSource>, { lockTimeoutMs: 5000 });
    await use(server);
  } finally {
    await client.end().catch(() => {});
    await server.stop("immediate");
  }
}

async function xid(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ xid: string }>("SELECT pg_current_xact_id()::text AS xid");
  return rows[0]?.xid ?? "";
}

for (const version of installed) {
  describe.skipIf(version.binaries === undefined)(`a server that crashes (${version.name})`, () => {
    test.each(Object.entries(KINDS))(
      "%s: a transaction that leaves no trace gives its id to another one",
      async (_, pipeline) => {
        await onServer(version, async (server) => {
          const record = new MemoryReading();
          const client = await superuser(server.url);
          const first = await TablesReading.open(server.url, pipeline, { record });
          await client.query("INSERT INTO t VALUES (1)");
          await first.until(1);
          await first.settled();
          await first.close();
          const { rows } = await client.query<{ pid: number }>(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'",
          );
          process.kill(rows[0]?.pid as number, "SIGSTOP");
          const older = await superuser(server.url);
          await older.query("BEGIN; SELECT pg_current_xact_id()");
          await client.query("INSERT INTO t VALUES (2)");
          await client.query("BEGIN; INSERT INTO t VALUES (3)");
          const aborted = await xid(client);
          await client.query("ROLLBACK");
          if (pipeline.source.kind === "polling") await older.query("COMMIT");
          // The snapshot of its batch takes the aborted transaction for ended.
          const second = await TablesReading.open(server.url, pipeline, { record, acknowledging: false });
          await second.until(1);
          await second.close();
          await server.kill();
          await server.restart();
          const later = await superuser(server.url);
          await later.query("BEGIN; INSERT INTO t VALUES (4)");
          const next = await xid(later);
          await later.query("COMMIT");
          const third = await TablesReading.open(server.url, pipeline, { record });
          await third.until(2);
          await later.query("INSERT INTO t VALUES (5)");
          const events = await third.until(3);
          expect(events.map(({ after }) => after?.id)).toEqual([2, 4, 5]);
          expect(BigInt(next)).toBeGreaterThan(BigInt(aborted));
          await third.close();
          for (const session of [later, older, client]) await session.end().catch(() => {});
        });
      },
    );
  });
}
