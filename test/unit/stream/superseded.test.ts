import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { kinesisClient } from "../../../lib/aws/clients.ts";
import { eventually } from "../../eventually.ts";
import { change, sourceOf } from "../../stream/changes.ts";
import { writeKinesis } from "../../stream/kinesis.ts";

const cleanups: (() => unknown)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

test("a superseded writer stops at once, with what it holds unwritten and unacknowledged", async () => {
  let requests = 0;
  // Never answers.
  const server = createServer(() => void requests++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const kinesis = kinesisClient({
    AWS_ENDPOINT_URL_KINESIS: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
  });
  cleanups.push(() => kinesis.destroy());
  const topic = { name: "shop.public.orders", partitions: 1 };
  const goOn = Promise.withResolvers<never>();
  const source = sourceOf(
    (async function* () {
      yield [change(topic, 0, 16n, 1), { kind: "commit" as const, endPlace: 20n, commitTimeMs: 0 }];
      await goOn.promise;
    })(),
  );
  const superseded = new AbortController();
  const written = writeKinesis(
    source,
    {
      kinesis,
      streamName: "s",
      writer: 1,
      packing: "batch",
      superseded: superseded.signal,
      log: { info() {}, warn() {} },
      // As an ordinary stop would wait.
      limits: { drainMs: 600_000, requestTimeoutMs: 600_000 },
    },
    new AbortController().signal,
  );
  written.catch(() => {});
  await eventually(() => requests === 1, { what: "a request" });
  const loss = new Error("the lease is lost");
  superseded.abort(loss);
  await expect(written).rejects.toBe(loss);
  expect(source.acknowledged).toEqual([]);
  expect(requests).toBe(1);
});
