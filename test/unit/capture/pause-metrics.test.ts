import { expect, it } from "vitest";
import { PausePublisher } from "../../../lib/capture/pause-metrics.ts";
import type { Pause } from "../../../lib/state/pause.ts";
import { emf } from "../observe/emf-line.ts";

const HOUR = 3_600_000;
const START = 1_795_428_930_000;

function publisher(seconds = 20) {
  const lines: string[] = [];
  const made = new PausePublisher({
    ...{ stage: "Test", pipeline: "shop", retentionHours: 24, seconds },
    write: (line) => lines.push(line),
  });
  const take = (consumers: Readonly<Record<string, Partial<Pause>>>, now: number) => {
    const pauses = Object.entries(consumers).map(([name, pause]): [string, Pause] => [
      name,
      { id: "1", by: "ada", since: START, reason: undefined, ...pause },
    ]);
    made.take({ capture: undefined, consumers: new Map(pauses) }, now);
    return lines.splice(0).map(emf);
  };
  return { take };
}
const used = (lines: ReturnType<typeof emf>[]) =>
  lines.map(({ dimensions, values }) => [dimensions.consumer, values.PauseRetentionUsed]);

it("writes how much of the retention each paused consumer has used, from its oldest change where that is known", () => {
  const { take } = publisher();
  const lines = take({ orders: {}, mails: { oldestAt: START - 6 * HOUR } }, START + 6 * HOUR);
  expect(used(lines)).toEqual([
    ["orders", 25],
    ["mails", 50],
  ]);
  expect(lines[0]).toMatchObject({
    dimensionSets: [["stage", "pipeline", "consumer"]],
    dimensions: { stage: "Test", pipeline: "shop" },
    units: { PauseRetentionUsed: "Percent" },
  });
});

it("writes never more than all, and never less than nothing where clocks differ", () => {
  expect(used(publisher().take({ orders: {} }, START + 30 * HOUR))).toEqual([["orders", 100]]);
  expect(used(publisher().take({ orders: {} }, START - HOUR))).toEqual([["orders", 0]]);
});

it("writes a pause at once, then when its time has come, and nothing where nobody is paused", () => {
  const { take } = publisher(20);
  expect(take({}, START)).toEqual([]);
  expect(take({ orders: {} }, START + 1_000)).toHaveLength(1);
  expect(take({ orders: {} }, START + 20_999)).toEqual([]);
  expect(take({ orders: {} }, START + 21_000)).toHaveLength(1);
  expect(take({}, START + 50_000)).toEqual([]);
  expect(take({ orders: {} }, START + 50_001)).toHaveLength(1);
});
