import { expect, test } from "vitest";
import { MAX_TOPICS, NewestChanges } from "../../../lib/capture/newest-changes.ts";

const at = (n: number) => ({ partition: 0, position: String(n).padStart(34, "0") });
const positions = (newest: NewestChanges, topic = "t") =>
  (newest.all[topic] ?? []).map(({ position }) => Number(position));

test("a change counts once the stream has it: not while anything as old is unacknowledged", () => {
  const newest = new NewestChanges();
  newest.take(new Map([["t", at(1)]]), 5, 1_000);
  newest.take(new Map([["t", at(2)]]), 1_005, 2_000);
  expect(positions(newest)).toEqual([]);
  newest.take(new Map([["t", at(3)]]), 5, 3_000);
  expect(newest.all.t).toEqual([{ ...at(1), at: 1_000 }]);
  newest.take(new Map([["t", at(3)]]), 0, 4_000);
  expect(positions(newest)).toEqual([3, 1]);
});

test("changes are thinned out with their age, and the newest is always there", () => {
  const newest = new NewestChanges();
  for (let n = 1; n <= 7_200; n++) newest.take(new Map([["t", at(n)]]), 0, n * 1_000);
  const kept = positions(newest);
  expect(kept[0]).toBe(7_200);
  expect(kept.length).toBeLessThanOrEqual(6);
  const ages = kept.map((n) => 7_200 - n);
  for (const [from, to] of [
    [1, 10],
    [10, 60],
    [60, 600],
    [600, 3_600],
    [3_600, 7_200],
  ] as const)
    expect(
      ages.some((age) => age >= from && age <= to),
      `one of ${from} to ${to} s`,
    ).toBe(true);
});

test("what the task before knew stays until a topic has something new, and the topics are bounded", () => {
  const newest = new NewestChanges();
  newest.recall({ t: [{ ...at(5), at: 1 }], u: [{ ...at(6), at: 2 }] });
  newest.take(new Map([["t", at(7)]]), 0, 10);
  expect(positions(newest)).toEqual([7, 5]);
  expect(positions(newest, "u")).toEqual([6]);
  newest.take(new Map(Array.from({ length: 100 }, (_, n) => [`topic${n}`, at(n)])), 0, 20);
  expect(Object.keys(newest.all)).toHaveLength(MAX_TOPICS);
});
