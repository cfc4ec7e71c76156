import { once } from "node:events";
import type { AddressInfo } from "node:net";
import kinesalite from "kinesalite";
import { serveFromChild } from "../child.ts";

await serveFromChild(async () => {
  const server = kinesalite({ createStreamMs: 10, deleteStreamMs: 10, updateStreamMs: 10, shardLimit: 1000 });
  // Node closes idle connections after 5 s, and a request under way on one would fail.
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
});
