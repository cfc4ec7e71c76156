import { describe, expect, it } from "vitest";
import { Sightings, standingOf } from "../../../lib/admin/capture-standing.ts";
import type { CaptureFailure, CaptureReport, StoredReport } from "../../../lib/state/capture-report.ts";

const NOW = 1_795_428_930_000;
const report = (over: Partial<CaptureReport> = {}): CaptureReport => ({
  ...{ state: "RUNNING", since: NOW - 60_000, at: NOW - 5_000, beat: 7, everyMs: 10_000 },
  ...{ task: "one", startedAt: NOW - 90_000 },
  ...over,
});
const failure = (over: Partial<CaptureFailure> = {}): CaptureFailure => ({
  ...{ code: "BROKEN", message: "m", remedy: "r", retry: "stop", at: NOW - 5_000 },
  ...over,
});
const stored = (over: Partial<StoredReport> = {}): StoredReport => ({
  ...{ slot: 1, seat: "holder", report: report(), failure: undefined },
  ...over,
});
const standing = (reports: readonly StoredReport[], lease?: Parameters<typeof standingOf>[1]) => {
  const sightings = new Sightings();
  return standingOf(reports, lease, (each) => sightings.isAlive(each, 0, NOW), NOW);
};

describe("the state of a slot's capture task", () => {
  it("is what it reports, while it reports", () => {
    for (const state of ["STARTING", "WAITING", "RUNNING", "HOLDING", "PAUSED", "STOPPED"] as const)
      expect(standing([stored({ report: report({ state }) })]).state).toBe(state);
  });

  it("is SILENT when reports stay away, but not for three that are late or clocks that differ a little", () => {
    const aged = (ms: number) => standing([stored({ report: report({ at: NOW - ms }) })]).state;
    expect([aged(44_000), aged(46_000), aged(-14_000), aged(-16_000)]).toEqual([
      "RUNNING",
      "SILENT",
      "RUNNING",
      "SILENT",
    ]);
    const ended = stored({ report: report({ state: "STOPPED", at: NOW - 9e9 }) });
    expect(standing([ended]).state, "what has ended need not report").toBe("STOPPED");
  });

  it("is judged by what moves under the reader's eyes, whatever the clocks say", () => {
    const sightings = new Sightings();
    const behind = (beat: number) => [stored({ report: report({ beat, at: NOW - 3_600_000 }) })];
    const seen = (now: number, beat: number) => {
      sightings.note(behind(beat), now);
      return sightings.isAlive(behind(beat)[0]?.report as CaptureReport, now, NOW);
    };
    expect([seen(0, 7), seen(9_000, 7), seen(11_000, 8), seen(41_000, 8), seen(42_000, 8)]).toEqual([
      false,
      false,
      true,
      true,
      false,
    ]);
    // And what stands still is silent, however young its clock makes it look.
    const young = report({ at: NOW });
    const other = new Sightings();
    other.note([stored({ report: young })], 0);
    expect(other.isAlive(young, 31_000, NOW)).toBe(false);
  });

  it("is SILENT for a task that was killed at a change of seat, and stands in both", () => {
    const sightings = new Sightings();
    const [starting, running] = [
      report({ state: "STARTING", beat: 6, at: NOW - 40_000 }),
      report({ at: NOW - 40_000 }),
    ];
    const both = [stored({ seat: "next", report: starting }), stored({ report: running })];
    for (let now = 0; now <= 31_000; now += 1_000) sightings.note(both, now);
    expect(sightings.isAlive(running, 31_000, NOW)).toBe(false);
    // Nor has it moved by standing there twice when it is looked at first.
    const first = new Sightings();
    first.note(both, 0);
    expect(first.isAlive(running, 0, NOW + 10_000)).toBe(false);
  });

  it("without any report follows the lease", () => {
    expect(standing([]).state).toBe("NEVER STARTED");
    expect(standing([], { owner: undefined, generation: 3, beatAt: NOW }).state).toBe("STOPPED");
    expect(standing([], { owner: "a", generation: 3, beatAt: NOW - 5_000 }).state).toBe("UNREPORTED");
    expect(standing([], { owner: "a", generation: 3, beatAt: NOW - 90_000 }).state).toBe("SILENT");
    expect(standing([], { owner: "a", generation: 3, beatAt: undefined }).state).toBe("SILENT");
  });

  it("after an error for an operator is FAILED; after one that may pass, WAITING to be started again for ten minutes", () => {
    const ended = (retry: CaptureFailure["retry"], ago: number) =>
      standing([
        stored({
          report: report({ state: "FAILED", at: NOW - ago }),
          failure: failure({ retry, at: NOW - ago }),
        }),
      ]).state;
    expect([ended("stop", 1), ended("restart", 1), ended("retry", 1), ended("restart", 700_000)]).toEqual([
      "FAILED",
      "WAITING",
      "WAITING",
      "FAILED",
    ]);
  });

  it("is that of the task that starts in place of a dead one, with the error of the dead one", () => {
    const dead = stored({ report: report({ state: "FAILED", at: NOW - 60_000 }), failure: failure() });
    const next = stored({ seat: "next", report: report({ task: "two", state: "WAITING", at: NOW - 1_000 }) });
    expect(standing([dead, next])).toMatchObject({ state: "WAITING", failure: { code: "BROKEN" } });
    expect(standing([dead, next]).newcomer).toBe(undefined);
  });

  it("is that of the holder while it lives; a newcomer stands beside it", () => {
    const next = stored({
      seat: "next",
      report: report({ task: "two", state: "FAILED", at: NOW - 1_000 }),
      failure: failure(),
    });
    const both = standing([stored(), next]);
    expect(both).toMatchObject({
      state: "RUNNING",
      newcomer: { state: "FAILED", failure: { code: "BROKEN" } },
    });
    expect(both.failure, "it is not the holder's").toBe(undefined);
    const old = { ...next, report: report({ task: "zero", state: "FAILED", at: NOW - 100_000 }) };
    expect(standing([stored(), old]).newcomer, "one from before the holder").toBe(undefined);
  });

  it("of tasks side by side counts them, and tells of one that failed until another has taken its place", () => {
    const side = (task: string, startedAt: number) =>
      stored({ seat: "task", report: report({ task, startedAt, state: "RUNNING" }) });
    const failed = stored({
      report: report({ task: "dead", state: "FAILED", at: NOW - 20_000 }),
      failure: failure({ at: NOW - 20_000 }),
    });
    const two = standing([failed, side("a", NOW - 90_000), side("b", NOW - 80_000)]);
    expect(two).toMatchObject({ state: "RUNNING", tasks: 2, newcomer: { state: "FAILED" } });
    const replaced = standing([failed, side("a", NOW - 90_000), side("b", NOW - 10_000)]);
    expect(replaced).toMatchObject({ state: "RUNNING", tasks: 2, newcomer: undefined });
  });

  it("is not lost on a report that this version cannot read", () => {
    const lease = { owner: "a", generation: 3, beatAt: NOW };
    expect(standing([stored({ report: undefined })], lease).state).toBe("UNREPORTED");
  });
});
