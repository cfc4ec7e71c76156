import fc from "fast-check";
import { expect, it } from "vitest";
import { backoffMs } from "../../lib/backoff.ts";

const waits = fc.record({
  baseMs: fc.integer({ min: 1, max: 1_000 }),
  capMs: fc.integer({ min: 0, max: 60_000 }),
});

it("waits double from the base up to the cap, without end", () => {
  const wait = (failures: number) => backoffMs(failures, { baseMs: 50, capMs: 5_000, jitter: 0 });
  expect([1, 2, 3, 7, 8, 5_000].map(wait)).toEqual([50, 100, 200, 3_200, 5_000, 5_000]);
});

it("the share that is random is the upper one, half of a wait unless said otherwise", () => {
  fc.assert(
    fc.property(
      waits,
      fc.integer({ min: 1, max: 2_000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (backoff, failures, jitter, random) => {
        const full = backoffMs(failures, { ...backoff, jitter: 0 });
        expect(backoffMs(failures, { ...backoff, jitter }, () => random)).toBeCloseTo(
          full * (1 - jitter) + full * jitter * random,
          6,
        );
        expect(backoffMs(failures, backoff, () => 0)).toBe(full / 2);
      },
    ),
  );
});
