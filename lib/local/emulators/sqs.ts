import type { AddressInfo } from "node:net";
import sqs from "local-aws-sqs";
import { serveFromChild } from "../child.ts";

await serveFromChild(async () => {
  // Without a host name it would listen on every interface.
  const server = await sqs.createSqsServer({
    port: 0,
    hostname: "127.0.0.1",
    region: process.env.AWS_REGION,
  });
  // Node closes idle connections after 5 s, and a request under way on one would fail.
  server.keepAliveTimeout = 0;
  return (server.address() as AddressInfo).port;
});
