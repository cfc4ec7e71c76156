import type { AddressInfo } from "node:net";
import { join } from "node:path";
import sqs from "local-aws-sqs";
import { sqsRefusal } from "../aws-limits/sqs.ts";
import { serveFromChild } from "../child.ts";
import { emulatorDirectory } from "./directory.ts";
import { KeptQueues } from "./kept-queues.ts";
import { limited } from "./limited.ts";

await serveFromChild(async () => {
  // Without a host name it would listen on every interface.
  const server = await sqs.createSqsServer({
    port: 0,
    hostname: "127.0.0.1",
    region: process.env.AWS_REGION,
  });
  const { port } = server.address() as AddressInfo;
  const directory = await emulatorDirectory();
  if (directory) await new KeptQueues(join(directory, "messages.jsonl")).follow(server, port);
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
  return port;
});
