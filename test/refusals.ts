import { afterEach, expect } from "vitest";
import type { AwsRefusal } from "../lib/aws/refusal.ts";

/** What AWS refuses of a test's calls. */
export interface Refusals {
  /** Notes a refusal, and returns the error that the client sees. */
  note(refusal: AwsRefusal): Error;
  /** Returns what was refused, and pardons it. */
  take(): AwsRefusal[];
}

/** Collects refusals for a test file: each test that leaves one fails. Call it at the top of a file. */
export function collectRefusals(): Refusals {
  const refusals: AwsRefusal[] = [];
  const take = () => refusals.splice(0);
  // A process that a test has started has no tests of its own: its client sees the refusal, and no more.
  if ("__vitest_worker__" in globalThis) {
    afterEach(() => {
      expect(take(), "calls that AWS refuses").toEqual([]);
    });
  }
  return {
    take,
    note(refusal) {
      refusals.push(refusal);
      return Object.assign(new Error(refusal.message), { name: refusal.code });
    },
  };
}
