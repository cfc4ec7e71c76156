import { expect, test } from "vitest";
import { type WalSample, walLossSeconds } from "../../../lib/telemetry/wal-forecast.ts";

const MB = 1024 * 1024;

/** A look each ten seconds; `held` in MB. */
function looks(seconds: number, held: (second: number) => number, bound = 10_000): WalSample[] {
  return Array.from({ length: seconds / 10 + 1 }, (_, i) => {
    const heldBytes = held(i * 10) * MB;
    return { atMs: 5_000_000 + i * 10_000, heldBytes, safeBytes: bound * MB - heldBytes };
  });
}

test("what stands still is lost when the rest of the bound is written", () => {
  // 1 MB/s for ten minutes, 9400 MB left.
  expect(walLossSeconds(looks(600, (s) => s))).toBeCloseTo(9400, 0);
});

test("a slot that moves along is in no danger, however busy the log is", () => {
  // The restart LSN moves every 15 s while 10 MB are written each second.
  expect(walLossSeconds(looks(600, (s) => (s % 15) * 10)) ?? Infinity).toBeGreaterThan(3600);
  expect(walLossSeconds(looks(600, () => 500))).toBeUndefined();
  expect(walLossSeconds(looks(600, (s) => 1000 - s))).toBeUndefined();
});

test("a burst of the last minute counts as it is, not as the average of ten", () => {
  const burst = looks(600, (s) => (s < 540 ? 0 : (s - 540) * 50));
  expect(walLossSeconds(burst)).toBeCloseTo(7000 / 50, 0);
});

test("what is older than ten minutes does not count", () => {
  const calm = looks(3600, (s) => (s < 3000 ? s : 3000));
  expect(walLossSeconds(calm)).toBeUndefined();
});

test("no bound, no forecast; nothing left, no time; a few looks say nothing", () => {
  const samples = looks(600, (s) => s);
  expect(walLossSeconds(samples.map((sample) => ({ ...sample, safeBytes: undefined })))).toBeUndefined();
  expect(walLossSeconds(looks(600, (s) => s, 600))).toBe(0);
  expect(walLossSeconds(looks(600, (s) => s, 100))).toBe(0);
  expect(walLossSeconds(looks(50, (s) => s))).toBeUndefined();
  expect(walLossSeconds([])).toBeUndefined();
});
