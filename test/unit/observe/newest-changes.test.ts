import { expect, test } from "vitest";
import { consumerLag } from "../../../lib/capture/consumer-lag.ts";
import { MAX_LATE, MAX_TOPICS, NewestChanges } from "../../../lib/capture/newest-changes.ts";

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
  expect(kept.length).toBeLessThanOrEqual(7);
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

/** Lag in minutes of a consumer that has applied what `isApplied` says, as a reader finds it. */
function minutesBehind(newest: NewestChanges, now: number, checkpointOf: (partition: number) => number) {
  const checkpoints = new Map(
    Array.from({ length: 64 }, (_, p) => [p, String(checkpointOf(p)).padStart(34, "0")] as const),
  );
  const lag = consumerLag(newest.all, () => ({ checkpoints, startPosition: "0".repeat(34) }), now);
  return lag.state === "behind" ? lag.forMs / 60_000 : 0;
}

test("a consumer that stands still in a busy topic is late after ten minutes, whenever it began to", () => {
  for (const stuckAt of [1_000, 2_000, 4_000, 7_000]) {
    const newest = new NewestChanges();
    for (let n = 1; n <= stuckAt + 14 * 60; n++) newest.take(new Map([["t", at(n)]]), 0, n * 1_000);
    const now = (stuckAt + 14 * 60) * 1_000;
    expect(
      minutesBehind(newest, now, () => stuckAt),
      `stuck at ${stuckAt} s`,
    ).toBeGreaterThanOrEqual(10);
  }
});

test("one that stands still in one partition of many is late too, and one that has all is not", () => {
  const newest = new NewestChanges();
  const last = new Map<number, number>();
  for (let n = 1; n <= 7_200; n++) {
    const partition = (n * 37) % 64;
    last.set(partition, n);
    newest.take(new Map([["t", { ...at(n), partition }]]), 0, n * 1_000);
  }
  const has = (partition: number) => last.get(partition) ?? 0;
  for (const stuck of [0, 5, 63])
    expect(
      minutesBehind(newest, 7_200_000, (p) => (p === stuck ? 6_000 : has(p))),
      `partition ${stuck}`,
    ).toBeGreaterThanOrEqual(10);
  expect(minutesBehind(newest, 7_200_000, has)).toBe(0);
  const known = new NewestChanges();
  known.recall(newest.all);
  known.take(new Map(), 0, 7_201_000);
  expect(
    minutesBehind(known, 7_201_000, (p) => (p === 5 ? 6_000 : has(p))),
    "behind a restart",
  ).toBeGreaterThanOrEqual(10);
});

test("of 500 topics one that a consumer is late in is told, and all stay within the size of an item", () => {
  const newest = new NewestChanges();
  const all = Array.from({ length: 500 }, (_, n) => `shop.a_schema.a_table_of_some_length_${n}`);
  newest.take(new Map(all.map((topic) => [topic, at(1)])), 0, 1_000);
  for (let n = 2; n <= 700; n++)
    newest.take(new Map(all.slice(1).map((topic) => [topic, at(n)])), 0, n * 1_000);
  expect(newest.all[all[0] as string], "the quiet one").toEqual([{ ...at(1), at: 1_000 }]);
  expect(Object.keys(newest.all)).toHaveLength(500);
  for (let n = 701; n <= 2_000; n++) {
    const partition = n % 64;
    newest.take(new Map(all.map((topic) => [topic, { ...at(n), partition }])), 0, n * 1_000);
  }
  expect(JSON.stringify(newest.all).length).toBeLessThan(250_000);
  expect(Object.values(newest.all).flat().length).toBeLessThanOrEqual(MAX_LATE + 6 * MAX_TOPICS);
});
