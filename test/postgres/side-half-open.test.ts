import { expect, test } from "vitest";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

eachPostgres("a look-up session whose network path is dead", (server) => {
  test("is replaced at its deadline: changes that need the catalog go on, and the slot is looked at again", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(
      "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY, v text); ALTER TABLE f REPLICA IDENTITY FULL",
    );
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server().port });
    const source = await OpenSource.open(proxy.urlFor(url), {
      pipeline: definition(url),
      walSenderTimeoutMs: 2000,
    });
    try {
      await client.query("INSERT INTO a VALUES (1)");
      await source.until(1);
      const replication = new Set(proxy.replicationLinks);
      for (const link of proxy.links) if (!replication.has(link)) link.halfOpen();
      await client.query("INSERT INTO a VALUES (2)");
      await source.until(2);
      // Its relation is asked for in the catalog.
      await client.query("INSERT INTO f VALUES (1, 'x')");
      await client.query("INSERT INTO a VALUES (3)");
      await source.until(4);
      expect(source.error).toBeUndefined();
      const held = () => source.status?.walHeldBytes ?? 0;
      const before = held();
      await client.query("SELECT pg_logical_emit_message(false, 'app', repeat('x', 1000000))");
      await eventually(() => held() !== before, { what: "another look at the slot" });
    } finally {
      await source.close();
      await proxy.stop();
      await client.end();
    }
  });
});
