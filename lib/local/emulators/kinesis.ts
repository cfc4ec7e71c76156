import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { kinesisRefusal } from "../aws-limits/kinesis.ts";
import { serveFromChild } from "../child.ts";
import { boundedKinesis } from "./bounded-kinesis.ts";
import { emulatorDirectory } from "./directory.ts";
import { limited } from "./limited.ts";
import { StreamLog } from "./stream-log.ts";

/** Of one stream, in base64; the process needs two to four times as much. */
const RETAINED_BYTES = 256 * 1024 * 1024;

await serveFromChild(async () => {
  const directory = await emulatorDirectory();
  const log = directory ? new StreamLog(directory) : undefined;
  const server = limited(boundedKinesis(RETAINED_BYTES, log), {
    service: "kinesis",
    refusalOf: kinesisRefusal,
    ownRefusals: ["ValidationException", "SerializationException", "InvalidArgumentException"],
  });
  // Node closes idle connections after 5 s, and a request under way on one would fail.
  server.keepAliveTimeout = 0;
  await log?.replay();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
});
