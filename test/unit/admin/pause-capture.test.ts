import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, expect, it, vi } from "vitest";
import { captureAtRest, pauseCapture } from "../../../lib/admin/pause-capture.ts";
import { captureKey } from "../../../lib/state/state-key.ts";
import { MemoryTable } from "../consume/memory-table.ts";

// Waiting takes no time here, but that of the clock.
vi.mock("node:timers/promises", async (original) => {
  const timers = await original<typeof import("node:timers/promises")>();
  const wait = async (ms: number) => {
    vi.advanceTimersByTime(ms);
    await timers.setImmediate();
  };
  return { ...timers, setTimeout: wait };
});

afterEach(() => void vi.useRealTimers());

/** A pipeline whose capture task says nothing of itself, and has the lease; `renews`: until when, in milliseconds. */
function shop(renews: number) {
  vi.useFakeTimers({ toFake: ["Date", "performance"], now: 0 });
  const table = new MemoryTable();
  const plain = table.client();
  const { pk, sk } = captureKey("shop");
  let beat = 0;
  const renew = () =>
    plain.send(
      new UpdateItemCommand({
        TableName: "t",
        Key: { pk: { S: pk }, sk: { S: sk } },
        UpdateExpression: "SET #owner = :owner, generation = :one, beat = :beat, beatAt = :at",
        ExpressionAttributeNames: { "#owner": "owner" },
        ExpressionAttributeValues: {
          ":owner": { S: "an old one" },
          ":one": { N: "1" },
          ":beat": { N: String(++beat) },
          ":at": { N: String(Date.now()) },
        },
      }),
    );
  const dynamodb = table.client(async (when) => {
    if (when === "before" && Date.now() <= renews) await renew();
    return "none";
  });
  return { dynamodb, table: "t", pipeline: "shop", signal: new AbortController().signal };
}

it("does not call at rest what holds the lease and says nothing of itself", async () => {
  const place = shop(Number.POSITIVE_INFINITY);
  await pauseCapture(place, { by: "ada" });
  expect(await captureAtRest(place, [1], 60_000)).toMatchObject([{ slot: 1, state: "UNREPORTED" }]);
});

it("waits for the lease of a task that was killed, and no longer", async () => {
  const place = shop(1_000);
  await pauseCapture(place, { by: "ada" });
  expect(await captureAtRest(place, [1], 60_000)).toMatchObject([{ slot: 1, state: undefined }]);
  expect(Date.now()).toBeGreaterThanOrEqual(15_000);
  expect(Date.now()).toBeLessThan(20_000);
});
