import { expect, test } from "vitest";
import { leftKeys, openDeadLetters, type Redrive, redrive } from "../../../lib/admin/redrive.ts";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import type {
  RedrivenLetter,
  RedriveReport,
  RedriveRequest,
} from "../../../lib/consume/dead-letter/redrive-request.ts";

const POSITION = `${"0".repeat(32)}17`;
const LETTER: RedrivenLetter = {
  ...{ topic: "shop.public.orders", partition: 3, key: "17", table: "public.orders", position: POSITION },
  ...{ failed: POSITION, outcome: "open", redriven: 0, attempts: 3, error: "RangeError", parked: 2 },
};

function report(given: Partial<RedriveReport>): RedriveReport {
  return {
    ...{ tributary: "redrive", consumer: "orders", redriven: 0, discarded: 0, done: 0, failed: 0, open: 0 },
    ...{ busy: 0, unhandled: 0, superseded: 0, more: false, durationMs: 1, letters: [] },
    ...given,
  };
}

/** Answers each call with the next report, and notes what it was asked. */
function scripted(...reports: readonly Partial<RedriveReport>[]): { run: Redrive; asked: RedriveRequest[] } {
  const asked: RedriveRequest[] = [];
  const run: Redrive = async (request) => {
    asked.push(request);
    const next = reports[asked.length - 1];
    if (!next) throw new Error(`nobody should ask again: ${JSON.stringify(request)}`);
    return report(next);
  };
  return { run, asked };
}

test("goes on in steps until no more is told, and sums them; only the last says what is left", async () => {
  const { run, asked } = scripted(
    { redriven: 500, done: 7, failed: 1, more: true },
    { redriven: 20, done: 2, failed: 1, open: 1, superseded: 1 },
  );
  const steps: boolean[] = [];
  const totals = await redrive(run, { consumer: "orders" }, { onStep: (_, { more }) => steps.push(more) });
  expect(totals).toEqual({
    ...{ redriven: 520, discarded: 0, done: 9, superseded: 1 },
    ...{ failed: 1, open: 1, busy: 0, unhandled: 0 },
  });
  expect(leftKeys(totals)).toBe(2);
  expect(steps).toEqual([true, false]);
  expect(asked.map(({ limit }) => limit)).toEqual([500, 500]);
});

test("ends where nothing moves, though more is told", async () => {
  const { run } = scripted({ open: 4, more: true });
  expect(leftKeys(await redrive(run, { consumer: "orders" }))).toBe(4);
});

test("ends at the limit, and asks for no more than what is left of it", async () => {
  const { run, asked } = scripted(
    { redriven: 500, more: true },
    { redriven: 300, more: true },
    { redriven: 200, more: true, open: 9 },
  );
  const totals = await redrive(run, { consumer: "orders" }, { limit: 1_000 });
  expect(asked.map(({ limit }) => limit)).toEqual([500, 500, 200]);
  expect(totals.redriven).toBe(1_000);
});

test("gives up each failed change by its position, then goes on with those behind it", async () => {
  const { run, asked } = scripted(
    { letters: [LETTER], open: 1 },
    { discarded: 1, redriven: 0 },
    { redriven: 1, done: 1 },
  );
  const totals = await redrive(run, { consumer: "orders", key: "17" }, { discard: true });
  expect(asked).toMatchObject([
    { key: "17", dryRun: true },
    { topic: LETTER.topic, partition: 3, position: POSITION, discard: true },
    { key: "17" },
  ]);
  expect(asked[2]).not.toHaveProperty("discard");
  expect(totals).toMatchObject({ discarded: 1, redriven: 1, done: 1 });
});

test("lists what is open, and changes nothing", async () => {
  const { run, asked } = scripted({ letters: [LETTER], open: 1 });
  expect((await openDeadLetters(run, { consumer: "orders", key: "17" })).letters).toEqual([LETTER]);
  expect(asked).toEqual([expect.objectContaining({ tributary: "redrive", dryRun: true, key: "17" })]);
});

test("asks nobody where the choice cannot be", async () => {
  const { run, asked } = scripted();
  await expect(redrive(run, { consumer: "orders" }, { discard: true })).rejects.toThrow(ConfigurationError);
  expect(asked).toEqual([]);
});

test.each([Number.NaN, 0, -1, 1.5])("a limit of %d is refused before anything is asked", async (limit) => {
  const { run, asked } = scripted();
  await expect(redrive(run, { consumer: "orders" }, { limit })).rejects.toThrow(ConfigurationError);
  expect(asked).toEqual([]);
});
