import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import dynalite from "dynalite";
import { dynamodbRefusal } from "../aws-limits/dynamodb.ts";
import { serveFromChild } from "../child.ts";
import { emulatorDirectory } from "./directory.ts";
import { limited } from "./limited.ts";

await serveFromChild(async () => {
  const directory = await emulatorDirectory();
  const path = directory ? { path: join(directory, "level") } : {};
  const server = limited(dynalite({ ...path, createTableMs: 10, deleteTableMs: 10, updateTableMs: 10 }), {
    service: "dynamodb",
    refusalOf: dynamodbRefusal,
    ownRefusals: ["ValidationException", "SerializationException"],
  });
  // Node closes idle connections after 5 s, and a request under way on one would fail.
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
});
