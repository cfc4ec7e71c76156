import { expect, test } from "vitest";
import { CaptureLeaseLostError } from "../../../lib/source/capture-lease-lost.ts";
import type { Aside } from "../../../lib/source/postgres/aside/aside-record.ts";
import {
  asideRecord,
  readAsides,
  readWantedAsides,
  unwantAside,
  wantAside,
} from "../../../lib/state/asides.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
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
const aside: Aside = {
  topic: "shop.public.orders",
  table: "public.orders",
  position: position(1),
  code: "TEXT_ENCODING",
  message: "m",
  since: 1_795_428_930_123,
  sent: false,
  reread: false,
};

test("a change that was put aside comes back as it was written, until it is removed", async () => {
  const place = await store();
  const record = asideRecord(place, 3);
  await record.write(aside);
  // Of another slot, which counted to the same position.
  const other = { ...aside, topic: "shop.public.items" };
  await record.write(other);
  await record.write({ ...aside, sent: true });
  expect((await readAsides(place)).toSorted((a, b) => (a.topic < b.topic ? 1 : -1))).toEqual([
    { ...aside, sent: true },
    other,
  ]);
  await record.remove(aside);
  expect(await record.list()).toEqual([other]);
});

test("what an operator wants put aside stands until it is done", async () => {
  const place = await store();
  const record = asideRecord(place, 3);
  await wantAside(place, position(2));
  await wantAside(place, position(2));
  await record.write(aside);
  expect(await readWantedAsides(place)).toEqual([position(2)]);
  expect(await record.wanted()).toEqual([position(2)]);
  await record.met(position(2));
  expect(await record.wanted()).toEqual([]);
  expect(await record.list()).toEqual([aside]);
});

test("an operator takes back what no task has come to", async () => {
  const place = await store();
  await wantAside(place, position(2));
  await unwantAside(place, position(2));
  await unwantAside(place, position(2));
  expect(await readWantedAsides(place)).toEqual([]);
});

test("a task whose lease was taken over writes nothing of it any more", async () => {
  const place = await store();
  await asideRecord(place, 4).write(aside);
  const older = asideRecord(place, 3);
  await expect(older.write({ ...aside, sent: true })).rejects.toBeInstanceOf(CaptureLeaseLostError);
  await expect(older.remove(aside)).rejects.toBeInstanceOf(CaptureLeaseLostError);
  expect(await readAsides(place)).toEqual([aside]);
});
