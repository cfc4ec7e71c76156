import fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { ConsumerPausedError } from "../../../lib/consume/consume-errors.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { PAUSE_SEEN_MS } from "../../../lib/consume/run/pause-flag.ts";
import { clearPause, setPause } from "../../../lib/state/pauses.ts";
import { memoryQueue } from "./memory-queue.ts";
import { MemoryTable } from "./memory-table.ts";
import { chain, invocationOf, packed } from "./records.ts";

/*
 * Rule 62: several sandboxes of one consumer, an event source mapping that delivers what was not acknowledged to any of them, operators who
 * pause and resume between invocations and while one runs, and a clock that goes on meanwhile.
 */

const CHANGES = 12;
const POISON = 5;

type Step =
  | {
      readonly kind: "deliver";
      readonly sandbox: number;
      readonly length: number;
      /** An operator pauses before the handler's call of this number; none where there are fewer. */
      readonly pausedAt: number;
      /** The state table throttles the call of this number, once. */
      readonly throttled: number;
    }
  | { readonly kind: "redrive"; readonly sandbox: number }
  | { readonly kind: "pause" }
  | { readonly kind: "resume" }
  | { readonly kind: "wait"; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("deliver" as const),
      sandbox: fc.nat(2),
      length: fc.integer({ min: 1, max: 4 }),
      pausedAt: fc.nat(12),
      throttled: fc.nat(30),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("redrive" as const), sandbox: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("pause" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("resume" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(1, 2_000, 4_999, 5_000) }),
  },
);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"] });
});
afterEach(() => {
  vi.useRealTimers();
});

async function play(steps: readonly Step[]) {
  vi.setSystemTime("2026-01-01T00:00:00Z");
  const table = new MemoryTable();
  const plain = table.client(async () => "none");
  const place = { dynamodb: plain, table: "t", pipeline: "p", signal: new AbortController().signal };
  await registerConsumers(plain, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
  const records = chain(1, CHANGES).map((change) => packed([change]));
  const effects: number[] = [];
  const seen = { calls: 0, writes: 0, table: 0, pausedAt: -1, throttled: -1, bad: true };
  let pausedSince: number | undefined;
  let acknowledged = 0;
  const wasPaused = { invocations: 0, redrives: 0 };

  const pause = async () => {
    if (pausedSince !== undefined) return;
    await setPause(place, { consumer: "c" }, { by: "ada", since: Date.now(), reason: undefined });
    pausedSince = Date.now();
  };
  const resume = async () => {
    if (pausedSince !== undefined) await clearPause(place, { consumer: "c" });
    pausedSince = undefined;
  };
  const sandboxes = [0, 1, 2].map(() => {
    const reports: InvocationReport[] = [];
    const handler = consumer("c")
      .on("*", Operation.Create, async (event) => {
        if (seen.calls++ === seen.pausedAt) await pause();
        const id = Number((event.after as { id: string }).id);
        if (seen.bad && id === POISON) throw new Error("poison");
        effects.push(id);
      })
      .handler({
        environment: {
          ...{ TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_ATTEMPTS: "1" },
          TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs.test/q",
        },
        dynamodb: table.client(async (when, what) => {
          if (when === "after") return "none";
          if (what !== "get" && what !== "query") seen.writes++;
          return seen.table++ === seen.throttled ? "throttled" : "none";
        }),
        sqs: memoryQueue(() => {}),
        observer: { invocation: (report) => reports.push(report) },
        write: () => {},
      });
    return { handler, reports };
  });
  const context = { getRemainingTimeInMillis: () => 10_000 };

  const deliver = async (number: number, length: number, pausedAt = -1, throttled = -1) => {
    const { handler, reports } = sandboxes[number] as (typeof sandboxes)[number];
    const batch = records.slice(acknowledged, acknowledged + length);
    if (batch.length === 0) return;
    Object.assign(seen, { calls: 0, writes: 0, table: 0, pausedAt, throttled });
    const begun = pausedSince;
    const isKnown = begun !== undefined && Date.now() - begun >= PAUSE_SEEN_MS;
    const isRunning = begun === undefined;
    const { batchItemFailures } = await handler(invocationOf(...batch), context);
    const report = reports.at(-1);
    const failed = batchItemFailures[0]?.itemIdentifier;
    const done = batch.findIndex(({ kinesis }) => kinesis.sequenceNumber === failed);
    if (isKnown) expect(report?.paused, "the bound has passed").toBeDefined();
    if (isRunning) expect(report?.paused, "nobody has paused").toBeUndefined();
    if (report?.paused !== undefined) {
      wasPaused.invocations++;
      expect(report.paused).toMatch(/^by ada since /);
      expect({ done, calls: seen.calls, writes: seen.writes }).toEqual({ done: 0, calls: 0, writes: 0 });
      expect(report).toMatchObject({ applied: 0, failedPartitions: 0, gaps: 0, retried: 0 });
    }
    acknowledged += done < 0 ? batch.length : done;
  };
  const redrive = async (number: number) => {
    Object.assign(seen, { calls: 0, writes: 0, pausedAt: -1, throttled: -1 });
    const { handler } = sandboxes[number] as (typeof sandboxes)[number];
    const run = () => handler({ tributary: "redrive" }, context);
    if (pausedSince === undefined) return void (await run());
    wasPaused.redrives++;
    await expect(run()).rejects.toBeInstanceOf(ConsumerPausedError);
    expect({ calls: seen.calls, writes: seen.writes }).toEqual({ calls: 0, writes: 0 });
    // To look changes nothing.
    const looked = await handler({ tributary: "redrive", dryRun: true }, context);
    expect(looked.redriven).toBe(0);
  };

  for (const one of steps) {
    if (one.kind === "deliver") await deliver(one.sandbox, one.length, one.pausedAt, one.throttled);
    else if (one.kind === "redrive") await redrive(one.sandbox);
    else if (one.kind === "pause") await pause();
    else if (one.kind === "resume") await resume();
    else vi.setSystemTime(Date.now() + one.ms);
  }
  await resume();
  seen.bad = false;
  for (let tries = 0; acknowledged < CHANGES && tries < 2 * CHANGES; tries++) await deliver(tries % 3, 4);
  await redrive(0);
  const all = chain(1, CHANGES).map(({ at }) => at);
  // Each once; in their order, but for the one whose key was parked.
  expect([...effects].sort((a, b) => a - b)).toEqual(all);
  expect(effects.filter((id) => id !== POISON)).toEqual(all.filter((id) => id !== POISON));
  return wasPaused;
}

it("applies nothing and acknowledges nothing once the pause is known everywhere, and each change once behind it", async () => {
  let invocations = 0;
  let redrives = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 30 }), async (steps) => {
      const paused = await play(steps);
      invocations += paused.invocations;
      redrives += paused.redrives;
    }),
    { numRuns: 150 },
  );
  expect(invocations).toBeGreaterThan(50);
  expect(redrives).toBeGreaterThan(10);
});

it("asks again where the clock was set back, and where the sandbox was frozen", async () => {
  const { invocations } = await play([
    { kind: "deliver", sandbox: 0, length: 1, pausedAt: 99, throttled: 99 },
    { kind: "pause" },
    { kind: "wait", ms: -3_600_000 },
    { kind: "deliver", sandbox: 0, length: 1, pausedAt: 99, throttled: 99 },
    { kind: "wait", ms: 7_200_000 },
    { kind: "deliver", sandbox: 0, length: 1, pausedAt: 99, throttled: 99 },
  ]);
  expect(invocations).toBe(2);
});

it("acknowledges nothing where the flag cannot be read", async () => {
  const table = new MemoryTable();
  const effects: unknown[] = [];
  const handler = consumer("c")
    .on("*", Operation.Create, (event) => void effects.push(event))
    .handler({
      environment: { TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
      dynamodb: table.client(async () => "throttled"),
      write: () => {},
    });
  const run = handler(invocationOf(packed(chain(1, 1))), { getRemainingTimeInMillis: () => 500 });
  await expect(run).rejects.toMatchObject({ code: "FENCE_UNAVAILABLE" });
  expect(effects).toEqual([]);
});
