import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import pg from "pg";
import * as copyStreams from "pg-copy-streams";
import { afterEach, describe, expect, test } from "vitest";
import { TcpFaultProxy } from "../../lib/testing/fault/tcp-proxy.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "./server.ts";

// The types of the package lack `both`.
const { both } = copyStreams as unknown as { both: (text: string) => unknown };
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server that sends what the test says, and notes what it gets. */
async function rawServer(): Promise<{ port: number; sockets: Socket[]; received: () => number }> {
  const sockets: Socket[] = [];
  let received = 0;
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("data", (chunk) => {
      received += chunk.length;
    });
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, sockets, received: () => received };
}

async function through(proxy: TcpFaultProxy) {
  const socket = connect(proxy.port, "127.0.0.1");
  const seen: { bytes: number; ended: boolean; error?: string } = { bytes: 0, ended: false };
  socket.on("data", (chunk) => {
    seen.bytes += chunk.length;
  });
  socket.on("end", () => {
    seen.ended = true;
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    seen.error = error.code;
  });
  cleanups.push(() => socket.destroy());
  await once(socket, "connect");
  return { socket, seen };
}

async function proxied() {
  const server = await rawServer();
  const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port });
  cleanups.push(() => proxy.stop());
  const client = await through(proxy);
  client.socket.write("hello there");
  await eventually(() => server.received() === 11, { what: "the first bytes to arrive" });
  const link = proxy.links[0];
  if (!link) throw new Error("no link");
  return { server, proxy, client, link, far: server.sockets[0] as Socket };
}

describe("TCP fault proxy over raw sockets", () => {
  test("passes bytes both ways and an orderly end", async () => {
    const { client, far, proxy } = await proxied();
    far.end("x".repeat(300_000));
    await eventually(() => client.seen.ended, { what: "the end" });
    expect(client.seen.bytes).toBe(300_000);
    client.socket.end();
    await eventually(() => proxy.links.length === 0, { what: "the link to be gone" });
  });

  test("a reset is a reset on both sides, an orderly end is none", async () => {
    const one = await proxied();
    one.link.cut("rst");
    await eventually(() => one.client.seen.error === "ECONNRESET", { what: "the reset" });
    await eventually(() => one.far.destroyed, { what: "the server's side to end" });
    const two = await proxied();
    two.link.cut("fin");
    await eventually(() => two.client.seen.ended, { what: "the end" });
    expect(two.client.seen.error).toBeUndefined();
  });

  test("cuts after exactly n bytes of the server", async () => {
    for (const how of ["rst", "fin"] as const) {
      const { client, far, link } = await proxied();
      link.cutAfterBytes(1234, how);
      far.write("x".repeat(1000));
      far.write("x".repeat(1000));
      await eventually(() => client.socket.destroyed || client.seen.ended, { what: "the cut" });
      expect(client.seen.bytes).toBe(1234);
    }
  });

  test("half-open swallows both directions and both ends", async () => {
    const { client, far, link, server } = await proxied();
    link.halfOpen();
    client.socket.write("lost");
    far.write("lost too");
    far.end();
    const other = await proxied();
    other.far.write("y");
    await eventually(() => other.client.seen.bytes === 1, { what: "a later byte on another link" });
    expect(server.received()).toBe(11);
    expect(client.seen).toEqual({ bytes: 0, ended: false });
    expect(client.socket.destroyed).toBe(false);
  });

  test("slows down, and speeds up again when healed", async () => {
    const { client, far, link } = await proxied();
    link.slow({ bytesPerSecond: 1000 });
    const started = performance.now();
    far.write("x".repeat(500));
    await eventually(() => client.seen.bytes === 500, { what: "500 slow bytes" });
    expect(performance.now() - started).toBeGreaterThan(300);
    link.slow({});
    far.write("x".repeat(1_000_000));
    await eventually(() => client.seen.bytes === 1_000_500, { what: "the rest" });
  });

  test("refuses new callers, keeps old links, and accepts again on the same port", async () => {
    const { client, far, proxy } = await proxied();
    await proxy.refuse();
    const refused = connect(proxy.port, "127.0.0.1");
    const [error] = await once(refused, "error");
    expect((error as NodeJS.ErrnoException).code).toBe("ECONNREFUSED");
    far.write("still here");
    await eventually(() => client.seen.bytes === 10, { what: "the old link" });
    await proxy.accept();
    await through(proxy);
  });
});

describe("TCP fault proxy in front of PostgreSQL", () => {
  withPostgres((server) => {
    test("knows replication links and cuts inside the n-th CopyData message", async () => {
      const database = await freshDatabase(server());
      const proxy = await TcpFaultProxy.start(server());
      cleanups.push(() => proxy.stop());
      const seenLinks: boolean[] = [];
      proxy.onLink = (link) => seenLinks.push(link.replication);

      const plain = new pg.Client({ connectionString: proxy.urlFor(database) });
      await plain.connect();
      cleanups.push(() => plain.end());
      await plain.query("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
      const slot = `proxy_${Date.now()}`;
      await plain.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
      cleanups.push(async () => {
        const admin = new pg.Client({ connectionString: database });
        await admin.connect();
        await eventually(() => admin.query("SELECT pg_drop_replication_slot($1)", [slot]).then(() => true), {
          what: "the slot to be free",
        });
        await admin.end();
      });
      await plain.query("INSERT INTO t SELECT generate_series(1, 50)");

      const replication = new pg.Client({
        connectionString: proxy.urlFor(database),
        replication: "database",
      } as pg.ClientConfig);
      let lost: Error | undefined;
      replication.on("error", (error) => {
        lost = error;
      });
      await replication.connect();
      expect(seenLinks).toEqual([false, true]);
      const link = proxy.replicationLinks[0];
      if (!link) throw new Error("no replication link");
      link.cutInsideCopyData(20);
      const stream = replication.query(
        both(
          `START_REPLICATION SLOT ${slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')`,
        ) as never,
      ) as unknown as NodeJS.ReadableStream;
      stream.on("error", (error: Error) => {
        lost = error;
      });
      stream.on("data", () => {});
      await eventually(() => lost, { what: "the cut" });
      expect(link.copyDataFromServer).toBeGreaterThanOrEqual(20);
      await eventually(() => proxy.links.length === 1, { what: "the link to be gone" });
      expect((await plain.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    });
  });
});
