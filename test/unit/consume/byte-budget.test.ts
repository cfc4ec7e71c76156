import { expect, test } from "vitest";
import { ByteBudget } from "../../../lib/consume/run/byte-budget.ts";

const never = new AbortController().signal;

/** Work that runs until it is told to end. */
function holder(budget: ByteBudget, bytes: number, signal = never) {
  const ended = Promise.withResolvers<void>();
  let running = false;
  const done = budget.use(bytes, signal, () => {
    running = true;
    return ended.promise;
  });
  return {
    done,
    running: () => running,
    async end() {
      ended.resolve();
      await done;
      await Promise.resolve();
    },
  };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("no more bytes than the limit are in use, and who waited longest is next", async () => {
  const budget = new ByteBudget(10);
  const [a, b, c, d] = [holder(budget, 6), holder(budget, 4), holder(budget, 8), holder(budget, 1)];
  await settle();
  expect([a, b, c, d].map((h) => h.running())).toEqual([true, true, false, false]);
  await b.end();
  await settle();
  // There would be room for d: c came first.
  expect([c, d].map((h) => h.running())).toEqual([false, false]);
  await a.end();
  await settle();
  expect([c, d].map((h) => h.running())).toEqual([true, true]);
  await Promise.all([c.end(), d.end()]);
});

test("what is larger than all of it runs alone", async () => {
  const budget = new ByteBudget(10);
  const small = holder(budget, 1);
  const large = holder(budget, 100);
  await settle();
  expect(large.running()).toBe(false);
  await small.end();
  await settle();
  expect(large.running()).toBe(true);
  const next = holder(budget, 1);
  await settle();
  expect(next.running()).toBe(false);
  await large.end();
  await settle();
  expect(next.running()).toBe(true);
  await next.end();
});

test("who gives up lets the next one pass; work that fails gives its room back", async () => {
  const budget = new ByteBudget(10);
  const first = holder(budget, 6);
  const stop = new AbortController();
  const impatient = holder(budget, 10, stop.signal);
  const patient = holder(budget, 4);
  stop.abort(new Error("enough"));
  await expect(impatient.done).rejects.toThrow("enough");
  await settle();
  expect(patient.running()).toBe(true);
  await Promise.all([first.end(), patient.end()]);
  await expect(budget.use(10, never, () => Promise.reject(new Error("failed")))).rejects.toThrow("failed");
  const after = holder(budget, 10);
  await settle();
  expect(after.running()).toBe(true);
  await after.end();
  await expect(budget.use(1, AbortSignal.abort(new Error("late")), async () => {})).rejects.toThrow("late");
});
