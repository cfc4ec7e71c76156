import { expect, test } from "vitest";
import { judgeOutbox } from "../../lib/local/judge/outbox/judge.ts";

/*
 * An application commits and rolls back orders while the capture tasks are killed. `npm run bench -- outbox` does the same
 * with 10,000 orders.
 */

const seed = Number(process.env.FAULT_SEED ?? Date.now() % 100_000);

test.each([
  { form: "relay", orders: 1000, tasks: 2, kills: 2 },
  { form: "table", orders: 400, tasks: 1, kills: 2 },
  { form: "message", orders: 400, tasks: 1, kills: 2 },
] as const)(
  "$form: $tasks tasks, each killed $kills times: every committed event once, in order, and no other",
  async (trial) => {
    const verdict = await judgeOutbox({ ...trial, seed });
    expect(verdict, `seed ${seed}`).toMatchObject({
      ok: true,
      ...{ lost: 0, extra: 0, duplicates: 0, outOfOrder: 0 },
      kills: trial.kills * trial.tasks,
      examples: [],
    });
    expect(verdict.events).toBe(verdict.committed);
    expect(verdict.rolledBack).toBeGreaterThan(0);
  },
);
