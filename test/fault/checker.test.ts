import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import { Trial, type Verdict } from "../../lib/testing/checker/checker.ts";
import { FAULTS } from "./faults.ts";

/*
 * The short form of `npm run test:fault`: a fault of each kind, one after the other on one pipeline, each time with
 * a random workload and the checker's verdict over everything since the start. The seed is printed with a failure.
 */

const SHORT = [
  "link cut inside a message",
  "server crashes",
  "Kinesis fails entries",
  "Kinesis loses answers",
  "Kinesis stores late",
  "capture killed before PutRecords' answer",
  "capture killed before feedback",
  "backfills, capture killed",
  "two capture tasks, hand-over",
  "handler killed after effect",
  "handler hangs before its effect",
  "batches given again, at once and late",
  "DynamoDB loses answers",
  "shards split and merge",
  "truncate while a partition lags",
];

const seed = Number(process.env.FAULT_SEED ?? Date.now() % 100_000);

describe(`the pipeline under faults (FAULT_SEED=${seed})`, () => {
  const random = seededRandom(seed);
  let trial: Trial | undefined;

  beforeAll(async () => {
    trial = await Trial.start({});
  });
  afterAll(async () => {
    await trial?.stop();
  });

  for (const [i, name] of SHORT.entries()) {
    test(`${name}: nothing lost, extra, out of order or doubled`, async () => {
      const fault = FAULTS.find((candidate) => candidate.name === name);
      if (!fault || !trial) throw new Error(`no fault "${name}"`);
      let injected = 0;
      const verdict = await trial.round({
        seed: seed + i,
        changes: 300,
        // A loaded machine: what counts here is that it arrives, not when.
        recoverMs: 120_000,
        faults: async (rig) => {
          injected = await fault.inject(rig, random, 1);
        },
      });
      expect(injected).toBeGreaterThan(0);
      expectClean(verdict);
    });
  }

  test("changes were parked meanwhile, and redriven", () => {
    expect(trial?.rig.redriven).toBeGreaterThan(0);
  });
});

function expectClean(verdict: Verdict): void {
  const found = Object.entries(verdict.sinks).flatMap(([sink, { examples }]) =>
    examples.map((example) => `${sink}: ${example}`),
  );
  expect([...found, ...verdict.confirmedTooEarly]).toEqual([]);
  expect(verdict.secondsToRecover).toBeDefined();
  expect(verdict).toMatchObject({ ok: true, rowMismatches: 0 });
}
