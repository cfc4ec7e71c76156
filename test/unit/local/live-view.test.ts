import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import {
  formatBytes,
  formatDuration,
  type LiveFigures,
  renderFrame,
  renderLine,
  sparkline,
} from "../../../lib/local/live-view.ts";
import { Meter } from "../../../lib/local/meter.ts";

const figures: LiveFigures = {
  pipeline: "shop",
  upMs: 3_723_000,
  source: "postgres://me@localhost/mine",
  workload: { rate: 118.4, changes: 12_345, commits: 512, rollbacks: 21 },
  capture: { rates: [1, 2], rate: 120, changes: 12_300, lagBytes: 1234, lagMs: 12, restarts: 0 },
  backfills: [{ table: "public.orders", status: "running", rows: 50_000, percent: 25 }],
  consumers: [
    {
      name: "order-summary",
      rates: [100, 110],
      rate: 105,
      applied: 12_000,
      retried: 3,
      duplicates: 7,
      unhandled: 5,
      deadLettered: 2,
      parkedBehind: 4,
      latencyMs: 45,
    },
  ],
  tables: [],
  hints: ["psql postgres://localhost"],
  log: ["one", "two"],
};

describe("the live view", () => {
  it("shows every figure", () => {
    const text = renderFrame(figures, 120).map(stripVTControlCharacters).join("\n");
    expect(text).toMatch(/up 01:02:03/);
    expect(text).toMatch(/workload +118 changes\/s +changes 12,345 +commits 512 +rolled back 21/);
    expect(text).toMatch(/capture +120 changes\/s.*lag 1\.2 kB · 12 ms/);
    expect(text).toMatch(/backfill +public\.orders running +rows 50,000 +█{6}░{18} 25%/);
    expect(text).toMatch(/order-summary +105 .* 12,000 +3 +7 +5 +2 +45 ms +parked 4/);
    expect(text).toContain("psql postgres://localhost");
    expect(text).toContain("two");
  });

  it.each([20, 60, 95])("keeps within %i columns", (columns) => {
    for (const line of renderFrame(figures, columns)) {
      expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(columns);
    }
  });

  it("says the same in one line without colours", () => {
    const line = renderLine(figures);
    expect(stripVTControlCharacters(line)).toBe(line);
    expect(line).toContain(
      "order-summary 105/s, applied 12,000, retried 3, duplicates 7, dead 2, parked 4, unhandled 5",
    );
    expect(line).toContain("backfill public.orders running, 50,000 rows, 25%");
    expect(line).not.toContain("\n");
  });

  it("draws a sparkline whose highest bar is full", () => {
    expect(sparkline([0, 50, 100], 5)).toBe("  ▁▅█");
    expect(sparkline([0, 0], 2)).toBe("▁▁");
    expect(sparkline([1, 2, 3, 4], 2)).toHaveLength(2);
  });

  it("prints sizes and times people read", () => {
    expect([0, 999, 1000, 2_500_000].map(formatBytes)).toEqual(["0 B", "999 B", "1.0 kB", "2.5 MB"]);
    expect(formatBytes(undefined)).toBe("–");
    expect(formatDuration(59_999)).toBe("00:00:59");
  });
});

describe("a meter", () => {
  it("makes rates of counts, calmed over three samples", () => {
    const meter = new Meter();
    for (const [count, at] of [
      [0, 0],
      [100, 1000],
      [300, 2000],
      [300, 3000],
      [360, 3500],
    ] as const) {
      meter.sample(count, at);
    }
    expect(meter.rates).toEqual([100, 200, 0, 120]);
    expect(meter.rate).toBeCloseTo((200 + 0 + 120) / 3);
  });

  it("counts a part that started anew as nothing, not as negative", () => {
    const meter = new Meter();
    meter.sample(500, 0);
    meter.sample(10, 1000);
    expect(meter.rate).toBe(0);
  });

  it("keeps no more than it was told to", () => {
    const meter = new Meter(3);
    for (let i = 0; i < 10; i++) meter.sample(i, i * 1000);
    expect(meter.rates).toHaveLength(3);
  });
});
