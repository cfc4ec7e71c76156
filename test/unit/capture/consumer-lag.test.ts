import { expect, test } from "vitest";
import { consumerLag, type TopicProgress } from "../../../lib/capture/consumer-lag.ts";

const NOW = 1_000_000;
const position = (n: number) => String(n).padStart(34, "0");
const change = (n: number, ago: number, partition = 0) => ({
  partition,
  position: position(n),
  at: NOW - ago,
});
const progress = (checkpoints: Record<number, number>, start = 0): TopicProgress => ({
  checkpoints: new Map(Object.entries(checkpoints).map(([p, n]) => [Number(p), position(n)])),
  startPosition: position(start),
});
const lag = (changes: ReturnType<typeof change>[], at: TopicProgress) =>
  consumerLag({ t: changes }, () => at, NOW);

test("a consumer that has the newest changes is caught up, however long ago they were", () => {
  expect(lag([change(9, 3_600_000), change(5, 7_200_000)], progress({ 0: 9 }))).toEqual({
    state: "caught up",
  });
});

test("one that lacks some is behind since the oldest of them, also while nothing new comes", () => {
  const changes = [change(9, 60_000), change(7, 120_000), change(5, 600_000)];
  expect(lag(changes, progress({ 0: 5 }))).toMatchObject({ state: "behind", forMs: 120_000, atLeast: false });
  expect(lag(changes, progress({ 0: 2 }))).toMatchObject({ state: "behind", forMs: 600_000, atLeast: true });
  expect(lag(changes, progress({}))).toMatchObject({ state: "behind", forMs: 600_000, atLeast: true });
});

test("each change is compared in its own partition, and with the start position", () => {
  const changes = [change(9, 10_000, 1), change(8, 60_000, 0)];
  expect(lag(changes, progress({ 1: 9 }))).toMatchObject({ state: "behind", forMs: 60_000 });
  expect(lag(changes, progress({ 1: 9 }, 8))).toEqual({ state: "caught up" });
});

test("of several topics the one that waits longest counts, and nothing known is unknown", () => {
  const newest = { t: [change(9, 10_000)], u: [change(9, 90_000)] };
  const both = consumerLag(newest, (topic) => progress(topic === "t" ? { 0: 9 } : {}), NOW);
  expect(both).toMatchObject({ state: "behind", topic: "u", forMs: 90_000 });
  expect(consumerLag({}, () => progress({}), NOW)).toMatchObject({ state: "unknown" });
});
