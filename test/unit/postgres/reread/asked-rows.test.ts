import { expect, test } from "vitest";
import { AskedRows } from "../../../../lib/source/postgres/reread/asked-rows.ts";

const at = (n: number) => `0000000100000000${String(n).padStart(8, "0")}0000000001`;
const key = (id: number | string) => ({ id: String(id) });
const ids = (asked: AskedRows) => asked.next(10_000).map((row) => row.key.id);

test("a row that was given leaves when it is acknowledged, and not if it was asked for anew meanwhile", () => {
  const asked = new AskedRows("public.notes", true);
  for (const id of [1, 2, 3]) asked.ask(key(id), at(id), BigInt(id));
  const read = asked.next(2);
  asked.given(read, 50n);
  expect(ids(asked)).toEqual(["3"]);
  asked.ask(key(2), at(60), 60n);
  expect(asked.acknowledge(49n)).toBe(false);
  expect(asked.count).toBe(3);
  expect(asked.acknowledge(50n)).toBe(true);
  expect(ids(asked)).toEqual(["3", "2"]);
  asked.given(asked.next(9), 70n);
  asked.acknowledge(70n);
  expect(asked.isEmpty).toBe(true);
});

test("the slot is bound to the first change whose request is in no record, also while one is written", () => {
  const asked = new AskedRows("public.notes", true);
  asked.ask(key(1), at(10), 10n);
  asked.ask(key(2), at(20), 20n);
  expect(asked.bound).toBe(10n);
  expect(asked.take().rows).toHaveLength(2);
  asked.ask(key(3), at(30), 30n);
  expect(asked.bound).toBe(10n);
  asked.written();
  expect(asked.bound).toBe(30n);
  // A change that was held for long is of an earlier commit.
  asked.ask(key(4), at(5), 5n);
  expect(asked.bound).toBe(5n);
  asked.take();
  asked.written();
  expect(asked.bound).toBeUndefined();
});

test("too many rows become the table, as it stands behind the last of them; what comes then is named again", () => {
  const asked = new AskedRows("public.notes", true);
  for (let id = 1; id <= 1_001; id++) asked.ask(key(id), at(id), BigInt(id));
  expect(asked).toMatchObject({ count: 0, whole: at(1_001) });
  asked.ask(key(7), at(2_000), 2_000n);
  expect(asked.take()).toEqual({
    table: "public.notes",
    rows: [{ key: key(7), at: at(2_000) }],
    whole: at(1_001),
  });
  asked.wholeRead(at(1_000));
  expect(asked.whole).toBe(at(1_001));
  asked.wholeRead(at(1_001));
  expect(asked).toMatchObject({ count: 1, whole: undefined });
});

test("it stands behind the last of them too where the one too many was asked for before: by a task of before", () => {
  const asked = new AskedRows("public.notes", false);
  for (let id = 1; id <= 600; id++) asked.ask(key(id), at(1_000 + id), BigInt(1_000 + id));
  const rows = Array.from({ length: 600 }, (_, i) => ({ key: key(10_000 + i), at: at(i) }));
  asked.add({ table: "public.notes", rows });
  expect(asked.whole).toBe(at(1_600));
});

test("too large keys become the table too: what is kept fits an item", () => {
  const asked = new AskedRows("public.notes", true);
  for (let id = 1; id <= 60; id++) asked.ask({ id: `${id}`.padEnd(2_000, "é") }, at(id), BigInt(id));
  expect(asked.whole).toBeDefined();
  expect(Buffer.byteLength(JSON.stringify(asked.take()))).toBeLessThan(400 * 1024);
});

test("a row that cannot be given is left aside and stays on record; a request from the record is no news", () => {
  const asked = new AskedRows("public.notes", true);
  asked.add({ table: "public.notes", rows: [{ key: key(1), at: at(1) }], whole: at(9) });
  asked.ask(key(2), at(20), 20n);
  // The record's own is older than what is known by now.
  asked.add({ table: "public.notes", rows: [{ key: key(2), at: at(2) }] });
  asked.setAside(asked.next(1));
  expect(ids(asked)).toEqual(["2"]);
  expect(asked.take()).toEqual({
    table: "public.notes",
    rows: [
      { key: key(1), at: at(1) },
      { key: key(2), at: at(20) },
    ],
    whole: at(9),
  });
});
