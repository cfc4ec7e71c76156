import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { kinesisClient } from "../../../lib/aws/clients.ts";
import { ageMs } from "../../../lib/state/lease.ts";
import { eventually } from "../../eventually.ts";
import { change, sourceOf } from "../../stream/changes.ts";
import { writeKinesis } from "../../stream/kinesis.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Kinesis, which answers while it is told to. */
async function kinesis() {
  const state = { requests: 0, answering: true, aborted: 0 };
  const server = createServer(async (request, response) => {
    state.requests++;
    request.on("close", () => void (request.complete || state.aborted++));
    response.on("close", () => void (response.writableEnded || state.aborted++));
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { Records } = JSON.parse(Buffer.concat(chunks).toString());
    if (!state.answering) return;
    const stored = Records.map(() => ({ SequenceNumber: "1", ShardId: "shardId-000000000000" }));
    response.end(JSON.stringify({ FailedRecordCount: 0, Records: stored }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = kinesisClient({
    AWS_ENDPOINT_URL_KINESIS: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ AWS_REGION: "us-east-1", AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" },
  });
  cleanups.push(() => {
    client.destroy();
    server.closeAllConnections();
    server.close();
  });
  return { state, client };
}

/** A writer of one change, under a lease that is what it is said to be. */
async function writer(lease: { leftMs: number }, answering = true) {
  const { state, client } = await kinesis();
  state.answering = answering;
  const stop = new AbortController();
  const source = sourceOf([
    [
      change({ name: "shop.public.orders", partitions: 1 }, 0, 16n, 1),
      { kind: "commit", endPlace: 20n, commitTimeMs: 0 },
    ],
  ]);
  const warnings: string[] = [];
  const written = writeKinesis(
    source,
    {
      ...{ kinesis: client, streamName: "s", writer: 1, packing: "batch" },
      leaseLeftMs: () => lease.leftMs,
      log: { info() {}, warn: (line) => void warnings.push(line) },
    },
    stop.signal,
  );
  written.catch(() => {});
  return { state, source, written, warnings };
}

test("a writer whose lease may be another's sends nothing, says so, and goes on once it is renewed", async () => {
  const lease = { leftMs: 0 };
  const { state, source, written, warnings } = await writer(lease);
  await eventually(() => warnings.length > 0, { what: "a warning" });
  expect(warnings[0]).toContain("lease");
  expect(state.requests).toBe(0);
  lease.leftMs = 1_000;
  await written;
  expect(state.requests).toBe(1);
  expect(source.acknowledged).toEqual([20n]);
});

test("a request is waited for no longer than the lease is held, and longer where that is renewed meanwhile", async () => {
  const lease = { leftMs: 50 };
  const { state, written } = await writer(lease, false);
  await eventually(() => state.requests === 1, { what: "the request" });
  // Renewed: it is still waited for.
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(state.aborted).toBe(0);
  }
  lease.leftMs = 0;
  await eventually(() => state.aborted > 0, { what: "the end of the request", deadlineMs: 5_000 });
  expect(state.requests).toBe(1);
  state.answering = true;
  lease.leftMs = 1_000;
  await written;
});

test("a lease that runs out while the request is signed keeps it from going", async () => {
  let asked = 0;
  const lease = {
    // When the request is taken, when its time is set; and then no more until it would go.
    get leftMs() {
      asked++;
      return asked > 2 && asked < 8 ? 0 : 1_000;
    },
  };
  const { state, written } = await writer(lease);
  await written;
  expect(asked).toBeGreaterThan(7);
  expect(state.requests).toBe(1);
});

test("a lease is as old as the clock says that says more", () => {
  const now = { monotonic: 1_000, wall: 50_000 };
  expect(ageMs({ monotonic: 900, wall: 49_950 }, now)).toBe(100);
  // The machine slept, and its monotonic clock with it.
  expect(ageMs({ monotonic: 900, wall: 20_000 }, now)).toBe(30_000);
  // The wall clock was set back.
  expect(ageMs({ monotonic: 900, wall: 90_000 }, now)).toBe(100);
});
