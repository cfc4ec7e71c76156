import { expect, test } from "vitest";
import { CaptureLeaseLostError } from "../../../lib/source/capture-lease-lost.ts";
import type { AskedTable } from "../../../lib/source/postgres/reread/reread-record.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
import { readRereads, rereadRecord } from "../../../lib/state/rereads.ts";
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

const lease = (generation: number) => ({ generation, confirm: async () => {} });
const at = (n: number) => `00000001000000000000000${n}0000000001`;
const asked: AskedTable = {
  table: 'public."Odd#Name"',
  rows: [
    { key: { id: "17", "the name": 'é"' }, at: at(1) },
    { key: { id: "18", "the name": "" }, at: at(2) },
  ],
  whole: at(3),
};

test("what is asked for comes back as it was written, by table, and is gone once nothing is", async () => {
  const place = await store();
  const record = rereadRecord(place, lease(3));
  const other = { table: "public.notes", rows: [], whole: at(1) };
  await record.write(asked);
  await record.write(other);
  expect(await record.list()).toEqual(expect.arrayContaining([asked, other]));
  expect(await record.read(asked.table)).toEqual(asked);
  await record.write({ table: asked.table, rows: [] });
  await record.write({ table: "public.never", rows: [] });
  expect(await readRereads(place)).toEqual([other]);
  expect(await record.read(asked.table)).toBeUndefined();
});

test("a task of an older generation, or without its lease, writes nothing more", async () => {
  const place = await store();
  const [older, newer] = [rereadRecord(place, lease(3)), rereadRecord(place, lease(4))];
  await older.write(asked);
  await newer.write(asked);
  await expect(older.write({ table: asked.table, rows: [] })).rejects.toBeInstanceOf(CaptureLeaseLostError);
  const lost = new CaptureLeaseLostError("shop", 5);
  const without = rereadRecord(place, { generation: 5, confirm: () => Promise.reject(lost) });
  await expect(without.write({ table: asked.table, rows: [] })).rejects.toBe(lost);
  expect(await readRereads(place)).toEqual([asked]);
});
