import { expect, test } from "vitest";
import type { ChangeEventJson, EventSource, WireRow } from "../../../lib/change/event.ts";
import { changedLine, hidesOldValues } from "../../../lib/cli/changed-line.ts";

type Given = Partial<Omit<ChangeEventJson, "source">> & { readonly source?: Partial<EventSource> };

function line({ source, ...given }: Given): string {
  const event = { op: "u", before: null, after: null, ...given };
  const place = { schema: "public", table: "orders", key: ["id"], ...source };
  return changedLine({ ...event, source: place } as ChangeEventJson);
}

const placed: WireRow = { id: "17", status: "placed", total: "5" };
const paid: WireRow = { ...placed, status: "paid" };

test.each<[string, Given, string]>([
  ["an update with its old row", { before: placed, after: paid }, "public.orders 17  status: placed → paid"],
  ["one that changed nothing", { before: paid, after: paid }, "public.orders 17  no value changed"],
  [
    "one whose old row is not in the log: none is shown as changed for certain",
    { after: paid },
    "public.orders 17  status: ? → paid, total: ? → 5",
  ],
  [
    "one of which a large value did not travel",
    { after: { id: "17", status: "paid" }, unchanged: ["note"] },
    "public.orders 17  status: ? → paid, note: unchanged",
  ],
  [
    "one that was too large for the stream",
    { before: placed, after: paid, omitted: ["photo"] },
    "public.orders 17  status: placed → paid, photo: left out",
  ],
  [
    "values that differ behind what is shown",
    { before: { id: "1", note: `${"x".repeat(90)}a` }, after: { id: "1", note: `${"x".repeat(90)}b` } },
    `public.orders 1  note: ${"x".repeat(59)}… → ${"x".repeat(59)}…`,
  ],
  [
    "NULL beside the text null",
    { before: { id: "1", a: null }, after: { id: "1", a: "null" } },
    "public.orders 1  a: null → null",
  ],
  ["a create", { op: "c", after: placed }, "public.orders 17  created, status: placed, total: 5"],
  ["a row that is there", { op: "r", after: placed }, "public.orders 17  is there, status: placed, total: 5"],
  ["a delete that knows the key alone", { op: "d", before: { id: "17" } }, "public.orders 17  deleted"],
  [
    "both halves of a change of key",
    { op: "d", before: { id: "17" }, source: { keyChange: { from: { id: "17" }, to: { id: "18" } } } },
    "public.orders 17  deleted, key becomes 18",
  ],
  [
    "the create of one",
    {
      op: "c",
      after: { id: "18" },
      unchanged: ["note"],
      source: { keyChange: { from: { id: "17" }, to: { id: "18" } } },
    },
    "public.orders 18  created, note: not in the log, key was 17",
  ],
  ["a truncate", { op: "t" }, "public.orders  truncated"],
  [
    "a table without a key, and a name to be quoted",
    { op: "c", after: { a: 1 }, source: { table: "Odd.Name", key: [] } },
    'public."Odd.Name" (no key)  created, a: 1',
  ],
  [
    "a logical message",
    {
      op: "m",
      message: { prefix: "audit", content: Buffer.from("hello").toString("base64"), transactional: true },
    },
    "message audit: hello",
  ],
])("%s", (_what, given, expected) => {
  expect(line(given)).toBe(expected);
});

test("an update without its old row is told from one with it", () => {
  const event = (before: WireRow | null) => ({ op: "u", before, after: paid }) as ChangeEventJson;
  expect([hidesOldValues(event(null)), hidesOldValues(event(placed))]).toEqual([true, false]);
});
