import { expect, test } from "vitest";
import { CaptureLeaseLostError } from "../../../lib/source/capture-lease-lost.ts";
import type { Hold, HoldSegment } from "../../../lib/source/postgres/hold/hold-record.ts";
import { holdRecord, readHolds, wantRelease } from "../../../lib/state/holds.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
import { TopicNotHeldError } from "../../../lib/state/state-errors.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

async function store(): Promise<StatePlace> {
  return {
    dynamodb: aws().dynamodb,
    table: await aws().freshTable(),
    pipeline: "shop",
    signal: new AbortController().signal,
  };
}

const position = (n: number) => `00000001000000000000000${n}0000000001`;
const hold: Hold = {
  topic: "shop.public.orders",
  reason: { code: "TEXT_ENCODING", message: "m", remedy: "r", table: "public.orders", position: position(1) },
  since: 1_795_428_930_123,
  from: position(1),
  last: position(3),
  drained: position(0),
  first: 0,
  next: 1,
  changes: 3,
  bytes: 500,
};
const segment: HoldSegment = {
  claim: { bucket: "b", key: "k", bytes: 500, sha256: "0".repeat(64) },
  changes: 3,
  last: position(3),
};

test("a hold comes back as it was written, with its segments", async () => {
  const place = await store();
  const record = holdRecord(place, 3);
  await record.writeSegment(hold.topic, 0, segment);
  await record.write(hold);
  expect(await readHolds(place)).toEqual([{ ...hold, released: false }]);
  expect(await record.readSegment(hold.topic, 0)).toEqual(segment);
});

test("what an operator wants stays when the task writes, until its release stopped or ended", async () => {
  const place = await store();
  const record = holdRecord(place, 3);
  await record.write(hold);
  await wantRelease(place, hold.topic);
  await record.write({ ...hold, changes: 4 });
  expect(await record.list()).toMatchObject([{ changes: 4, released: true }]);
  await record.write(hold, true);
  expect(await record.list()).toMatchObject([{ released: false }]);
  await record.end(hold);
  expect(await record.list()).toEqual([]);
  await record.write(hold);
  expect(await record.list()).toMatchObject([{ released: false }]);
});

test("a task that was taken over writes no hold and no segment, also after the hold's end", async () => {
  const place = await store();
  const [older, newer] = [holdRecord(place, 3), holdRecord(place, 4)];
  await newer.writeSegment(hold.topic, 0, segment);
  await newer.write(hold);
  await newer.end(hold);
  await expect(older.write(hold)).rejects.toThrow(CaptureLeaseLostError);
  expect(await newer.list()).toEqual([]);
  await newer.writeSegment(hold.topic, 0, segment);
  await expect(older.writeSegment(hold.topic, 0, segment)).rejects.toThrow(CaptureLeaseLostError);
});

test("releasing a topic that is not held names those that are", async () => {
  const place = await store();
  await expect(wantRelease(place, hold.topic)).rejects.toThrow(TopicNotHeldError);
  await holdRecord(place, 1).write({ ...hold, topic: "shop.public.items" });
  await expect(wantRelease(place, hold.topic)).rejects.toMatchObject({
    remedy: expect.stringContaining("shop.public.items"),
  });
  expect(await readHolds(place)).toHaveLength(1);
});
