import { expect, test } from "vitest";
import { TailRows } from "../../../lib/cli/tail-rows.ts";

const REQUEST = { sweep: false, requestedAt: 0 };
const NOTHING = {
  startPosition: "0",
  startedAt: 0,
  lastKey: null,
  keyColumns: [],
  chunk: 0,
  bytes: 0,
  updatedAt: 0,
};

async function rows(all: boolean) {
  const said: string[] = [];
  const record = new TailRows({ all, say: (line) => void said.push(line) });
  await record.request("public.orders", REQUEST);
  return { record, said };
}

test("without --snapshot only tables that are made meanwhile are read", async () => {
  const { record } = await rows(false);
  expect(await record.list()).toEqual([]);
  record.add("public.payments");
  expect([record.isIdle, (await record.list()).map(({ table }) => table)]).toEqual([
    false,
    ["public.payments"],
  ]);
});

test("what was read whole counts as read when the source is opened anew", async () => {
  const { record, said } = await rows(true);
  const [backfill] = await record.list();
  if (!backfill) throw new Error("nothing was asked for");
  const progress = { ...NOTHING, rows: 3 };
  expect(await record.write(backfill, { status: "done", epoch: 1, progress })).toBe(true);
  expect([record.isIdle, (await record.list())[0]?.wholeEpoch]).toEqual([true, 1]);
  expect(said).toEqual(["the rows of public.orders are printed: 3"]);
});

test("a run that was begun anew is written by nobody else, and a table that left is another when it comes back", async () => {
  const { record } = await rows(true);
  const [first] = await record.list();
  if (!first) throw new Error("nothing was asked for");
  await record.restart(first, REQUEST);
  const update = { status: "running", epoch: 1, progress: undefined } as const;
  expect(await record.write(first, update)).toBe(false);
  const [second] = await record.list();
  if (!second) throw new Error("nothing was begun");
  await record.write(second, { ...update, left: true });
  expect(await record.list()).toEqual([]);
});
