import { expect, test } from "vitest";
import type { ShopResult } from "../../lib/local/shop/run.ts";
import { runOutboxChecker } from "../../lib/testing/checker/outbox/checker.ts";
import { npmStart } from "./npm-start.ts";

/*
 * An application commits and rolls back orders while the capture tasks are killed. `npm run bench -- outbox` does the same
 * with 10,000 orders.
 */

const seed = Number(process.env.FAULT_SEED ?? Date.now() % 100_000);

test.each([
  {
    form: "relay",
    orders: 800,
    // Steady, so that each task has work left to be killed at, however fast the machine is.
    perSecond: 150,
    tasks: 2,
    kills: 1,
    freezes: 1,
    failpoints: ["batch-recorded=kill@2", "put-records-answered=kill@3"],
  },
  { form: "table", orders: 200, perSecond: 100, tasks: 1, kills: 1, failpoints: ["before-slot-record=kill"] },
  {
    form: "message",
    orders: 200,
    perSecond: 100,
    tasks: 1,
    kills: 1,
    failpoints: ["put-records-answered=kill"],
  },
] as const)(
  "$form: every committed event once, in order, and no other, while capture is killed and frozen",
  async (trial) => {
    const verdict = await runOutboxChecker({ ...trial, seed });
    expect(verdict, `seed ${seed}`).toMatchObject({
      ok: true,
      ...{ lost: 0, extra: 0, duplicates: 0, outOfOrder: 0 },
      kills: trial.kills * trial.tasks,
      examples: [],
    });
    // Killed, and once more at the failpoint: between a batch and its publication, between that and what knows of it.
    expect(verdict.ends).toBeGreaterThanOrEqual(2 * trial.kills * trial.tasks);
    expect(verdict.events).toBe(verdict.committed);
    expect(verdict.rolledBack).toBeGreaterThan(0);
  },
);

test("npm start -- --source outbox: the shop by its events; every letter once, every event in effect", async () => {
  const { code, stdout, stderr } = await npmStart(
    "--source",
    "outbox",
    "--changes",
    "300",
    "--exit",
    "--json",
  ).finished;
  expect(code, stderr).toBe(0);
  const { changes, published, applied, deadLettered, mismatches } = JSON.parse(stdout) as ShopResult;
  expect(changes).toBeGreaterThanOrEqual(300);
  expect({ published, applied: applied + deadLettered, mismatches }).toEqual({
    published: changes,
    applied: changes,
    mismatches: 0,
  });
});
