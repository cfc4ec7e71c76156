import { describe, expect, it } from "vitest";
import { RunningCalls } from "../../../lib/consume/run/running-calls.ts";

const PLACE = { topic: "t", partition: 0 };

describe("calls of one partition that nobody waits for any more", () => {
  it("run until the last of them has ended, however another ends", async () => {
    const calls = new RunningCalls();
    const invocations = Promise.withResolvers<boolean>();
    const redrives = Promise.withResolvers<boolean>();
    calls.add(PLACE, invocations.promise, undefined);
    calls.add(PLACE, redrives.promise, undefined);
    redrives.reject(new Error("late"));
    await new Promise(setImmediate);
    expect(calls.has(PLACE)).toBe(true);
    invocations.resolve(true);
    await new Promise(setImmediate);
    expect(calls.has(PLACE)).toBe(false);
  });

  it("are each known to have succeeded, whichever was the last to begin", async () => {
    const calls = new RunningCalls();
    const invocations = Promise.withResolvers<boolean>();
    calls.add(PLACE, invocations.promise, "one");
    calls.add(PLACE, Promise.resolve(true), "two");
    invocations.resolve(true);
    await new Promise(setImmediate);
    expect([calls.succeeded(PLACE, "one"), calls.succeeded(PLACE, "two")]).toEqual([true, true]);
  });
});
