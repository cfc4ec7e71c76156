import { expect, it } from "vitest";
import type { PositionText } from "../../../lib/change/position.ts";
import { redriveMetricsLine } from "../../../lib/consume/dead-letter/redrive-metrics.ts";
import { consumerMetricsLine } from "../../../lib/consume/run/consumer-metrics.ts";
import { InvocationCounts } from "../../../lib/consume/run/observer.ts";
import { CONSUMER_METRIC } from "../../../lib/telemetry/metrics.ts";
import { emf } from "./emf-line.ts";

const SHOP = { stage: "Test", pipeline: "shop" };

it("an invocation's line has its counts, dimensions and the report's own fields", () => {
  const counts = new InvocationCounts();
  for (let i = 0; i < 100; i++) counts.effect(Date.now() - 1000);
  counts.effect(Date.now() - 60_000);
  counts.deadLettered = 2;
  const report = counts.report("orders", 0, 12.4);
  const line = emf(consumerMetricsLine(SHOP, report));
  expect(line.kind).toBe("consumer");
  expect(line.dimensions).toEqual({ stage: "Test", pipeline: "shop", consumer: "orders" });
  expect(line.dimensionSets).toEqual([["stage", "pipeline", "consumer"]]);
  const { CommitToEffectMilliseconds: latencies, ...values } = line.values;
  expect(values).toEqual({ Applied: 101, DeadLettered: 2 });
  expect(line.fields).toMatchObject({ applied: 101, deadLettered: 2, duplicates: 0, durationMs: 12 });
  const sorted = latencies as number[];
  expect(sorted).toHaveLength(20);
  expect(sorted).toEqual([...sorted].sort((a, b) => a - b));
  expect(sorted.at(-1)).toBeGreaterThanOrEqual(60_000);
  expect(sorted.at(-2)).toBeLessThan(60_000);
});

it("every metric of a report is published under its name once it is above zero", () => {
  const counts = new InvocationCounts();
  counts.effect(Date.now());
  const { commitToEffectMs: _latency, ...counters } = CONSUMER_METRIC;
  const ones = Object.fromEntries(Object.keys(counters).map((name) => [name, 1]));
  const line = emf(consumerMetricsLine(SHOP, { ...counts.report("orders", 1, 1), ...ones }));
  const named = Object.values(CONSUMER_METRIC).map(({ name, unit }) => [name, unit]);
  expect(Object.entries(line.units).sort()).toEqual(named.sort());
});

it("an invocation without an effect has no latency", () => {
  const line = emf(consumerMetricsLine(SHOP, new InvocationCounts().report("orders", 0, 1)));
  expect(line.values).toEqual({ Applied: 0 });
});

it("a redrive's line counts what it did, and names no keys: they are row values", () => {
  const letter = { topic: "shop.public.orders", partition: 3, key: "me@example.com", table: "public.orders" };
  const line = redriveMetricsLine(SHOP, {
    tributary: "redrive",
    consumer: "orders",
    ...{ redriven: 7, discarded: 1, done: 2, failed: 1, open: 0, busy: 0, unhandled: 0, superseded: 0 },
    ...{ more: false, durationMs: 120 },
    letters: [
      {
        ...letter,
        position: "000000010000000001F789080000000002" as PositionText,
        outcome: "done",
        ...{ redriven: 7, attempts: 3, error: "TypeError" },
      },
    ],
  });
  expect(line).not.toContain("me@example.com");
  const { kind, dimensions, values, fields } = emf(line);
  expect(kind).toBe("redrive");
  expect(dimensions).toEqual({ stage: "Test", pipeline: "shop", consumer: "orders" });
  expect(values).toEqual({ Redriven: 7, Discarded: 1, RedriveFailed: 1 });
  expect(fields).toMatchObject({ redriven: 7, done: 2, more: false, durationMs: 120 });
});
