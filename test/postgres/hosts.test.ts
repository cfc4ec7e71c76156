import { expect, test } from "vitest";
import type { EmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { connect, connectionFromUrl, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { LeftoverSlots } from "../../lib/source/postgres/slot/leftover-slots.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres } from "./server.ts";
import { definition, KeptLog, OpenSource, superuser } from "./source.ts";
import { startStandby } from "./standby.ts";

/** A URL that names these servers, in this order. */
function urlOf(...servers: EmbeddedPostgres[]): string {
  const [first] = servers as [EmbeddedPostgres];
  const { username, password, pathname } = new URL(first.url);
  const places = servers.map(({ port }) => `127.0.0.1:${port}`).join(",");
  return `postgres://${username}:${password}@${places}${pathname}?target_session_attrs=read-write`;
}

eachPostgres("several servers in a URL", (server) => {
  test("the one that takes writes is read from; an old primary that comes back is not, and its slot is told", async () => {
    const primary = server();
    const standby = await startStandby(primary);
    const portOf = async (connection: Parameters<typeof connect>[0], replication: boolean) => {
      const client = await connect(connection, { replication });
      const { rows } = await client.query("SELECT current_setting('port') AS port");
      await disconnect(client);
      return Number(rows[0].port);
    };
    try {
      const sql = await superuser(primary.url);
      await sql.query("CREATE TABLE t (id int PRIMARY KEY)");
      const url = urlOf(standby, primary);
      const connection = connectionFromUrl(url);
      for (const replication of [false, true])
        expect(await portOf(connection, replication)).toBe(primary.port);
      const source = await OpenSource.open(primary.url, {
        connection,
        pipeline: definition(primary.url, { slot: "of_hosts" }),
      });
      await sql.query("INSERT INTO t VALUES (1)");
      await source.until(1);
      await source.close();

      const log = new KeptLog();
      const { signal } = new AbortController();
      const atStandby = new LeftoverSlots(connection, "of_hosts", log, signal);
      await atStandby.look(0);
      expect(atStandby.found).toEqual([]);

      // A failover by hand: both take writes, as when the old primary comes back.
      const other = await superuser(standby.url);
      await other.query("SELECT pg_promote()");
      await eventually(async () => !(await other.query("SELECT pg_is_in_recovery() AS is")).rows[0].is, {
        what: "the promotion",
      });
      const old = connectionFromUrl(urlOf(primary, standby));
      old.hosts?.noteTimeline(2);
      for (const replication of [false, true]) expect(await portOf(old, replication)).toBe(standby.port);
      expect(await portOf(connectionFromUrl(urlOf(standby, primary)), false)).toBe(standby.port);

      const atPrimary = new LeftoverSlots(old, "of_hosts", log, signal);
      await atPrimary.look(0);
      const at = `127.0.0.1:${primary.port}`;
      expect(atPrimary.found).toEqual([{ server: at, heldBytes: expect.any(Number) }]);
      expect(log.lines.join()).toContain(
        `the server ${at}, which is not read from, still has the slot "of_hosts"`,
      );
      await sql.query("SELECT pg_drop_replication_slot('of_hosts')");
      await atPrimary.look(60_000);
      expect(atPrimary.found).toEqual([]);

      await other.end();
      await standby.stop("immediate");
      // Only the old primary is left: nothing is read rather than another history.
      await expect(connect(old)).rejects.toMatchObject({
        code: "POSTGRES_UNREACHABLE",
        retry: "retry",
        message: expect.stringMatching(/takes writes on timeline 1, and timeline 2 was read already/),
      });
      await sql.end();
    } finally {
      await standby.stop("immediate");
    }
  });
});
