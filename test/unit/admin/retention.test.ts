import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, it } from "vitest";
import { oldestUnapplied } from "../../../lib/admin/retention.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { type CaptureReport, writeCaptureReport } from "../../../lib/state/capture-report.ts";
import { shardKey } from "../../../lib/state/state-key.ts";
import { MemoryTable } from "../consume/memory-table.ts";
import { at, TOPIC } from "../consume/records.ts";

const HOUR = 3_600_000;
const { consumers } = definePipeline({
  name: "shop",
  source: postgres({ tables: ["public.orders"] }),
  consumers: [{ name: "orders", entry: "orders.ts", topics: ["*"] }],
});
const [orders] = consumers;

/** A consumer that has applied nothing; capture knows of a change an hour ago. `finished`: when the records arrived up to which it has its shards. */
async function shop(finished: readonly number[]) {
  const dynamodb = new MemoryTable().client();
  const { signal } = new AbortController();
  const place = { dynamodb, table: "t", pipeline: "shop", signal };
  const now = Date.now();
  await registerConsumers(dynamodb, "t", "shop", consumers, START_OF_HISTORY, signal);
  const report: CaptureReport = {
    ...{ state: "RUNNING", since: now, at: now, beat: 1, everyMs: 10_000, task: "one", startedAt: now },
    newest: { [TOPIC]: [{ partition: 0, position: at(9), at: now - HOUR }] },
  };
  await writeCaptureReport({ ...place, slot: 1, seat: "holder" }, report, undefined, signal);
  for (const [i, arrived] of finished.entries()) {
    const { pk, sk } = shardKey({ pipeline: "shop", consumer: "orders" }, `shardId-00000000000${i}`);
    const Item = { pk: { S: pk }, sk: { S: sk }, arrived: { N: String(arrived) } };
    await dynamodb.send(new PutItemCommand({ TableName: "t", Item }));
  }
  return { place, now };
}

it("knows of a consumer that is behind by days how long ago it finished its shards", async () => {
  if (!orders) throw new Error("no consumer");
  const now = Date.now();
  const { place } = await shop([now - 5 * 24 * HOUR, now - 6 * 24 * HOUR, now - 40 * 24 * HOUR]);
  expect(await oldestUnapplied(place, orders, now, 168)).toBe(now - 6 * 24 * HOUR);
});

it("knows no more than capture's reports where no shard was finished", async () => {
  if (!orders) throw new Error("no consumer");
  const { place, now } = await shop([]);
  const oldest = await oldestUnapplied(place, orders, now, 168);
  expect(Math.abs(oldest - (now - HOUR))).toBeLessThan(5_000);
});

it("counts from the pause where that was before, and where nothing waits", async () => {
  if (!orders) throw new Error("no consumer");
  const { place, now } = await shop([]);
  expect(await oldestUnapplied(place, orders, now - 2 * HOUR, 168)).toBe(now - 2 * HOUR);
  const dynamodb = new MemoryTable().client();
  expect(await oldestUnapplied({ ...place, dynamodb }, orders, now - 60_000, 168)).toBe(now - 60_000);
});
