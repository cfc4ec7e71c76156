import fc from "fast-check";
import { expect, test } from "vitest";
import {
  isDead,
  linkPatience,
  nextStep,
  reconnectDelayMs,
} from "../../../lib/source/postgres/link/liveness.ts";

const TIMEOUT = 20_000;
const patience = linkPatience(TIMEOUT);
const quiet = { silentSince: undefined, lastAsked: undefined, lastLook: undefined };

test.each([
  { what: "just said something", times: { ...quiet, lastFeedback: 0 }, now: 4999, step: undefined },
  {
    what: "a quarter of the timeout is over",
    times: { ...quiet, lastFeedback: 0 },
    now: 5000,
    step: "feedback",
  },
  {
    what: "blocked for an hour: feedback, and no doubt",
    times: { ...quiet, lastFeedback: 3_595_000 },
    now: 3_600_000,
    step: "feedback",
  },
  {
    what: "half the timeout silent",
    times: { ...quiet, lastFeedback: 9000, silentSince: 0 },
    now: 10_000,
    step: "ask",
  },
  {
    what: "asked a moment ago",
    times: { ...quiet, lastFeedback: 10_000, silentSince: 0, lastAsked: 10_000 },
    now: 11_000,
    step: undefined,
  },
  {
    what: "silent for the timeout",
    times: { ...quiet, lastFeedback: 19_000, silentSince: 0, lastAsked: 10_000 },
    now: 20_000,
    step: "look",
  },
  {
    what: "looked a moment ago",
    times: { lastFeedback: 20_000, silentSince: 0, lastAsked: 20_000, lastLook: 20_000 },
    now: 21_000,
    step: undefined,
  },
])("$what → $step", ({ times, now, step }) => {
  expect(nextStep(times, patience, now)).toBe(step);
});

/**
 * A link on a fake clock: the server hangs up when it heard nothing for its timeout, and answers questions
 * except while it decodes.
 */
function simulate(options: {
  tickMs: number;
  blocked: boolean;
  decodesUntil: number;
  diesAt: number;
  until: number;
}) {
  let lastFeedback = 0;
  let heard = 0;
  let arrived = 0;
  let lastAsked: number | undefined;
  let lastLook: number | undefined;
  let seen: Parameters<typeof isDead>[1];
  let longestUnheard = 0;
  let givenUpAt: number | undefined;
  for (let now = 0; now <= options.until && givenUpAt === undefined; now += options.tickMs) {
    const silentSince = options.blocked ? undefined : arrived;
    const step = nextStep({ lastFeedback, silentSince, lastAsked, lastLook }, patience, now);
    const alive = now < options.diesAt;
    const decoding = now < options.decodesUntil;
    if (step !== undefined) {
      lastFeedback = now;
      if (alive && !decoding) heard = now;
      if (step !== "feedback") lastAsked = now;
    }
    if (step === "look") {
      lastLook = now;
      const sighting = !alive
        ? now - options.diesAt > TIMEOUT
          ? "gone"
          : "unreachable"
        : decoding
          ? "busy"
          : "answered";
      if (isDead(sighting, seen, now - arrived, patience)) givenUpAt = now;
      seen = sighting;
    }
    if (step === "ask" && alive && !decoding) {
      arrived = now;
      lastAsked = undefined;
      lastLook = undefined;
      seen = undefined;
    }
    if (alive && !decoding) longestUnheard = Math.max(longestUnheard, now - heard);
  }
  return { longestUnheard, givenUpAt };
}

const ticks = fc.integer({ min: 100, max: patience.feedbackMs / 4 });

test("a link that works is never given up, and the server hears us within half its timeout", () => {
  fc.assert(
    fc.property(ticks, fc.boolean(), (tickMs, blocked) => {
      const run = simulate({
        tickMs,
        blocked,
        decodesUntil: 0,
        diesAt: Number.POSITIVE_INFINITY,
        until: 600_000,
      });
      expect(run.givenUpAt).toBeUndefined();
      expect(run.longestUnheard).toBeLessThan(TIMEOUT / 2);
    }),
  );
});

test("a decode of 20 minutes is no dead link", () => {
  fc.assert(
    fc.property(ticks, (tickMs) => {
      const decodesUntil = 20 * 60_000;
      const run = simulate({
        tickMs,
        blocked: false,
        decodesUntil,
        diesAt: Number.POSITIVE_INFINITY,
        until: decodesUntil,
      });
      expect(run.givenUpAt).toBeUndefined();
    }),
  );
});

test("a dead link is given up within four timeouts", () => {
  fc.assert(
    fc.property(ticks, fc.integer({ min: 0, max: 60_000 }), (tickMs, diesAt) => {
      const run = simulate({ tickMs, blocked: false, decodesUntil: 0, diesAt, until: 600_000 });
      expect(run.givenUpAt).toBeLessThan(diesAt + 4 * TIMEOUT);
    }),
  );
});

test("an answer on its way is waited for: only the second in a row counts", () => {
  expect(isDead("answered", undefined, 20_000, patience)).toBe(false);
  expect(isDead("answered", "busy", 20_000, patience)).toBe(false);
  expect(isDead("answered", "answered", 30_000, patience)).toBe(true);
});

test("attempts come later and later, up to 30 s, and never at once", () => {
  fc.assert(
    fc.property(
      fc.nat(1000),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (attempt, random) => {
        const wait = reconnectDelayMs(attempt, random);
        expect(wait).toBeGreaterThanOrEqual(10);
        expect(wait).toBeLessThanOrEqual(30_000);
        expect(reconnectDelayMs(attempt + 1, random)).toBeGreaterThanOrEqual(wait);
      },
    ),
  );
});
