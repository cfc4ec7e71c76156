import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLsn } from "../../../lib/change/lsn.ts";
import {
  formatPosition,
  parsePosition,
  printedPosition,
  START_OF_HISTORY,
} from "../../../lib/change/position.ts";

const position = fc.record({
  epoch: fc.integer({ min: 0, max: 0xffffffff }),
  commitLsn: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  ordinal: fc.integer({ min: 0, max: 9_999_999_999 }),
});

test("the text is 8 hex digits, 16 hex digits, 10 decimal digits", () => {
  expect(formatPosition({ epoch: 1, commitLsn: 0x1f78908n, ordinal: 2 })).toBe(
    "000000010000000001F789080000000002",
  );
});

test("what is formatted is read again", () => {
  fc.assert(
    fc.property(position, (p) => {
      expect(parsePosition(formatPosition(p))).toEqual(p);
    }),
  );
});

test("a commit LSN as PostgreSQL prints it, or in lower case, gives the same text", () => {
  fc.assert(
    fc.property(position, (p) => {
      const printed = formatLsn(p.commitLsn);
      for (const lsn of [printed, printed.toLowerCase()])
        expect(printedPosition(p.epoch, lsn, p.ordinal)).toBe(formatPosition(p));
    }),
  );
});

test("text order is position order", () => {
  fc.assert(
    fc.property(position, position, fc.constantFrom(0, 1, 2), (a, other, shared) => {
      // Random positions seldom share an epoch or a commit: let them.
      const b = {
        epoch: shared > 0 ? a.epoch : other.epoch,
        commitLsn: shared > 1 ? a.commitLsn : other.commitLsn,
        ordinal: other.ordinal,
      };
      const before =
        a.epoch !== b.epoch
          ? a.epoch < b.epoch
          : a.commitLsn !== b.commitLsn
            ? a.commitLsn < b.commitLsn
            : a.ordinal < b.ordinal;
      expect(formatPosition(a) < formatPosition(b)).toBe(before);
    }),
  );
});

test("every position is behind the start of history", () => {
  expect(formatPosition({ epoch: 0, commitLsn: 0n, ordinal: 1 }) > START_OF_HISTORY).toBe(true);
  expect(parsePosition(START_OF_HISTORY)).toEqual({ epoch: 0, commitLsn: 0n, ordinal: 0 });
});

test.each(["", "0".repeat(33), "0".repeat(35), "f".repeat(24) + "0".repeat(10), `${"0".repeat(33)}A`])(
  "%j is refused",
  (text) => {
    expect(() => parsePosition(text)).toThrow("not a position");
  },
);
