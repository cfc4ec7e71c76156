import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { describe, expect, test } from "vitest";
import {
  type BatchesVerdict,
  isWhole,
  runBatchesChecker,
} from "../../lib/testing/checker/batches/checker.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { eventually } from "../eventually.ts";
import { FAULTS } from "./faults.ts";

const seed = Number(process.env.FAULT_SEED ?? Date.now() % 100_000);

/** Capture killed at its worst places, a server that crashes, sessions that are cut, answers that are lost. */
async function faults(rig: Rig): Promise<void> {
  for (const failpoint of ["batch-recorded", "put-records-answered"]) {
    const ends = rig.capture.ends.length;
    rig.capture.arm(`${failpoint}=kill@2`);
    rig.capture.kill();
    await eventually(() => rig.capture.ends.length >= ends + 2, { what: `a kill at ${failpoint}` });
    await eventually(
      () => {
        if (rig.capture.gaveUp) throw new Error(rig.capture.log.slice(-3).join("\n"));
        return rig.capture.streaming;
      },
      { what: "capture that reads again" },
    );
  }
  const random = () => 0.5;
  await rig.source.kill();
  await rig.source.restart();
  await FAULTS.find((fault) => fault.name === "Kinesis loses answers")?.inject(rig, random, 1);
  await delay(500);
}

/** Then a row that comes to the sink and is deleted: whatever the seed, polling does not tell of the delete. */
async function faultsAndDelete(rig: Rig): Promise<void> {
  await faults(rig);
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    await client.query("INSERT INTO accounts (id, v) VALUES (-7, 'given')");
    const given = async () => (await rig.sinks.rows()).has("public.accounts [-7]");
    await eventually(given, { what: "the row in the sink" });
    await client.query("DELETE FROM accounts WHERE id = -7");
  } finally {
    await client.end();
  }
}

function expectWhole(verdict: BatchesVerdict): void {
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ doubled: 0, outOfOrder: 0, wrongRows: 0 });
}

describe(`sources that read tables, under faults (FAULT_SEED=${seed})`, () => {
  test("triggers: every event that the log tells of, once and in order, and the same rows", async () => {
    const verdict = await runBatchesChecker({
      kind: "triggers",
      seed,
      changes: 600,
      faults,
      recoverMs: 60_000,
    });
    expectWhole(verdict);
    for (const { expected, seen } of Object.values(verdict.events)) expect(seen).toBe(expected);
    expect(verdict.surplusRows).toBe(0);
    expect(isWhole(verdict, "triggers")).toBe(true);
  });

  test("polling: the last state of every row that is there; no deletes, and not the states between two looks", async () => {
    const verdict = await runBatchesChecker({
      ...{ kind: "polling", seed, changes: 600, faults: faultsAndDelete },
      recoverMs: 60_000,
    });
    expectWhole(verdict);
    const counts = Object.values(verdict.events);
    for (const { expected, seen } of counts) expect(seen).toBeLessThanOrEqual(expected);
    expect(counts.some(({ expected, seen }) => seen < expected)).toBe(true);
    // What was deleted stays in the sink: exactly that, and nothing else.
    expect(verdict.surplusRows).toBeGreaterThan(0);
    expect(verdict.surplusRows).toBe(verdict.surplusDeleted);
  });

  test("polling that looks for deletes: the rows that are there, and no others", async () => {
    const verdict = await runBatchesChecker({
      ...{ kind: "pollingDeletes", seed, changes: 600, faults },
      recoverMs: 60_000,
    });
    expectWhole(verdict);
    expect(verdict.surplusRows).toBe(0);
  });
});
