import { expect, test } from "vitest";
import type { PipelinePlan, PlannedChange } from "../../../lib/admin/plan/pipeline-plan.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { exitCode } from "../../../lib/cli/plan.ts";
import { planInWords } from "../../../lib/cli/plan-words.ts";

const NOTHING: PipelinePlan = {
  pipeline: "shop",
  ...{ changes: [], refusals: [], warnings: [], notes: [], unseen: [] },
};
const position = formatPosition({ epoch: 2, commitLsn: 0x1_0000_00ffn, ordinal: 0 });
const table = { what: "table", name: "public.orders" } as const;
const backfill = { what: "backfill", name: "public.orders" } as const;
const topic = { what: "topic", name: "*.orders", consumer: "search" } as const;
const publication = { what: "publication", name: "p", sql: [], removed: [], changed: [] } as const;

test.each<readonly [PlannedChange, string]>([
  [{ ...publication, action: "add", added: ["a.b", "a.c"] }, "+ publication p: with a.b, a.c"],
  [
    { ...publication, action: "change", added: ["a.b"], removed: ["a.c"], changed: ["a.d"] },
    "~ publication p: takes in a.b; lets go of a.c; publishes other columns or rows of a.d",
  ],
  [{ ...publication, action: "remove", added: [] }, "- publication p"],
  [{ what: "slot", action: "add", name: "s", number: 1 }, "+ slot s"],
  [{ what: "slot", action: "change", name: "s", number: 1 }, "~ slot s: is there, unread, and is taken"],
  [
    { ...table, action: "add", topic: "shop.public.orders", partitions: 64, key: ["customer"] },
    "+ table public.orders: topic shop.public.orders, 64 partitions, by customer (never changed after)",
  ],
  [
    { ...table, action: "change", from: "s", to: "s_slot2" },
    "~ table public.orders: moves from slot s to slot s_slot2",
  ],
  [{ ...table, action: "remove" }, "- table public.orders: is captured no more"],
  [
    { ...backfill, action: "add", sweep: false, rows: 1_200_000, bytes: 3 * 1024 ** 3 },
    "+ backfill of public.orders: about 1,200,000 rows, 3.0 GB",
  ],
  [
    { ...backfill, action: "change", sweep: true, rows: undefined, bytes: 0 },
    "~ backfill of public.orders: rows not estimated (ANALYZE), 0 bytes; sinks remove what it does not find; begins anew",
  ],
  [
    { what: "reading", action: "add", name: "polling", existing: true, rows: 12 },
    "+ reading by polling begins, with what is there already (about 12)",
  ],
  [
    { what: "reading", action: "add", name: "triggers", existing: false, rows: undefined },
    "+ reading by triggers begins, with changes from now on",
  ],
  [
    { ...topic, action: "add", start: { from: "beginning" } },
    "+ consumer search: begins with *.orders, from the first change on",
  ],
  [
    { ...topic, action: "add", start: { from: "startAt", startAt: "oldest" } },
    "+ consumer search: begins with *.orders, with the oldest changes that are still in the stream",
  ],
  [
    { ...topic, action: "add", start: { from: "startAt", startAt: "2026-11-30T21:00:00Z" } },
    "+ consumer search: begins with *.orders, with what was committed since 2026-11-30T21:00:00Z",
  ],
  [
    { ...topic, action: "add", start: { from: "position", position } },
    "+ consumer search: begins with *.orders, behind 1/FF (epoch 2) or what is confirmed by then",
  ],
  [
    {
      ...topic,
      ...{ action: "add", start: { from: "position", position: `00000002${"0".repeat(26)}` } },
    },
    "+ consumer search: begins with *.orders, from the beginning of epoch 2",
  ],
  [{ ...topic, action: "remove", start: undefined }, "- consumer search: gives up *.orders"],
])("%j", (change, line) => {
  expect(planInWords({ ...NOTHING, changes: [change] })[0]).toBe(line);
});

test("pairs each refusal with its own remedy, and says that nothing was touched", () => {
  const refusals = ["A", "B"].map((code) => ({ code, message: `${code} is\nwrong`, remedy: `mend ${code}` }));
  expect(planInWords({ ...NOTHING, refusals })).toEqual([
    ...["! A: A is\n  wrong", "  What to do: mend A", "! B: B is\n  wrong", "  What to do: mend B", ""],
    'A start of the pipeline "shop" would be refused. Nothing was touched.',
  ]);
});

test("does not say that nothing would change where the database was not seen", () => {
  expect(planInWords(NOTHING)).toEqual([
    'Pipeline "shop": a start would change nothing. Nothing was touched.',
  ]);
  const unseen = [{ what: "database", why: "it is private" }];
  expect(planInWords({ ...NOTHING, unseen })).toEqual([
    "  Not seen: database: it is private",
    ...["  A private database is seen from the network of a stack: tributary plan --remote", ""],
    'Pipeline "shop": nothing would change in what was seen; the database was not. Nothing was touched.',
  ]);
});

test("does not say that nothing would change where a deployed part was refused", () => {
  const change = { ...table, action: "add", topic: "t", partitions: 1, key: ["id"] } as const;
  const left = { what: "settings of consumers", why: "the image leaves them out" };
  const refused = { what: "function of orders", why: "AccessDenied", failed: true } as const;
  expect(exitCode(NOTHING)).toBe(0);
  expect(exitCode({ ...NOTHING, unseen: [left] })).toBe(0);
  expect(exitCode({ ...NOTHING, unseen: [left, refused] })).toBe(1);
  expect(exitCode({ ...NOTHING, changes: [change], unseen: [refused] })).toBe(2);
});
