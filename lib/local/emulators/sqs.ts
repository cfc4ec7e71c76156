import type { AddressInfo } from "node:net";
import sqs from "local-aws-sqs";
import { sqsRefusal } from "../aws-limits/sqs.ts";
import { serveFromChild } from "../child.ts";
import { limited } from "./limited.ts";

await serveFromChild(async () => {
  // Without a host name it would listen on every interface.
  const server = await sqs.createSqsServer({
    port: 0,
    hostname: "127.0.0.1",
    region: process.env.AWS_REGION,
  });
  limited(server, {
    service: "sqs",
    refusalOf: (operation, input) => sqsRefusal(operation, input),
    ownRefusals: [
      "InvalidMessageContents",
      "InvalidParameterValueException",
      "MissingRequiredParameterException",
    ],
  });
  // Node closes idle connections after 5 s, and a request under way on one would fail.
  server.keepAliveTimeout = 0;
  return (server.address() as AddressInfo).port;
});
