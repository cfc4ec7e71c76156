import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLsn, parseLsn } from "../../../lib/change/lsn.ts";

test.each([
  ["0/0", 0n],
  ["0/1F788D8", 0x1f788d8n],
  ["16/B374D848", 0x16b374d848n],
  ["FFFFFFFF/FFFFFFFF", 0xffffffffffffffffn],
])("%s", (text, lsn) => {
  expect(parseLsn(text)).toBe(lsn);
  expect(formatLsn(lsn)).toBe(text);
});

test("what is formatted is read again", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (lsn) => {
      expect(parseLsn(formatLsn(lsn))).toBe(lsn);
    }),
  );
});

test("lower case is read", () => {
  expect(parseLsn("0/1f788d8")).toBe(0x1f788d8n);
});

test.each(["", "0", "0/", "/0", "0/123456789", "G/0", "0/0 ", "0x1/0", "-1/0"])("%j is refused", (text) => {
  expect(() => parseLsn(text)).toThrow(`not an LSN: "${text}"`);
});
