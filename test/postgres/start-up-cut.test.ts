import { expect, test } from "vitest";
import { TributaryError } from "../../lib/change/tributary-error.ts";
import { connect, connectionFromUrl, disconnect } from "../../lib/source/postgres/link/connection.ts";
import { openPostgresSource } from "../../lib/source/postgres/postgres-source.ts";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, KeptLog, MemoryRecord, OpenSource, superuser } from "./source.ts";

/** Whole starts are cut at about so many places. */
const PLACES = 250;

eachPostgres("a link that is cut at any byte while a session begins", (server) => {
  async function behindProxy() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server().port });
    return { url, client, proxy, connection: connectionFromUrl(proxy.urlFor(url)) };
  }

  test.each([false, true])("is a typed error of connect (replication: %s)", async (replication) => {
    const { client, proxy, connection } = await behindProxy();
    try {
      let cutAt = Number.POSITIVE_INFINITY;
      let bytes = 0;
      proxy.onLink = (link) => {
        link.cutAfterBytes(cutAt, cutAt % 2 === 0 ? "rst" : "fin");
        void link.closed.then(() => {
          bytes = link.bytesFromServer;
        });
      };
      await disconnect(await connect(connection, { replication }));
      await expect.poll(() => bytes).toBeGreaterThan(300);
      const whole = bytes;
      for (cutAt = 0; cutAt < whole; cutAt++) {
        const error = await connect(connection, { replication }).then(disconnect, (e) => e);
        // Closing it may be all that was cut.
        if (error !== undefined && !(error instanceof TributaryError))
          expect.fail(`${cutAt}: ${error.stack}`);
        if (cutAt < whole / 2) expect(error).toMatchObject({ code: "POSTGRES_UNREACHABLE", retry: "retry" });
      }
    } finally {
      await proxy.stop();
      await client.end();
    }
  });

  test("is a typed error of a start of capture, whichever of its sessions it is", async () => {
    const { url, client, proxy, connection } = await behindProxy();
    const record = new MemoryRecord();
    const open = async () => {
      const source = await openPostgresSource({
        ...{ connection, pipeline: definition(url), record, takeoverMs: 5000 },
        ...{ signal: new AbortController().signal, log: new KeptLog() },
      });
      await source.close();
    };
    try {
      await (await OpenSource.open(url, { record })).close();
      const lengths: number[] = [];
      let links = 0;
      proxy.onLink = (link) => {
        const index = links++;
        void link.closed.then(() => {
          lengths[index] = link.bytesFromServer;
        });
      };
      await open();
      await expect.poll(() => lengths.length > 1 && lengths.every((n) => n > 0)).toBe(true);
      const step = Math.ceil(lengths.reduce((sum, n) => sum + n, 0) / PLACES);
      const codes = new Map<string, number>();
      for (const [which, length] of [...lengths].entries()) {
        for (let cutAt = which; cutAt < length; cutAt += step) {
          links = 0;
          proxy.onLink = (link) => {
            if (links++ === which) link.cutAfterBytes(cutAt);
          };
          const error = await open().catch((e) => e);
          if (error === undefined) continue;
          if (!(error instanceof TributaryError)) expect.fail(`link ${which}, byte ${cutAt}: ${error.stack}`);
          expect(error.retry, error.message).not.toBe("stop");
          codes.set(error.code, (codes.get(error.code) ?? 0) + 1);
        }
      }
      expect(codes.get("POSTGRES_UNREACHABLE")).toBeGreaterThan(PLACES / 4);
      proxy.onLink = undefined;
      await open();
    } finally {
      await proxy.stop();
      await client.end();
    }
  });
});
