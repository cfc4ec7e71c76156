import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { counterAhead, FenceToken, GIVEN_BACK, isHeld } from "../../../lib/consume/fence/fence-token.ts";

const owner = fc.base64String({ minLength: 16, maxLength: 16 }).map((text) => text.replaceAll(/[+/=]/g, "z"));
const counter = fc.integer({ min: 0, max: 36 ** 9 - 1 });

describe("a partition's token", () => {
  it("grows with each write, and once more when the partition is given back", () => {
    fc.assert(
      fc.property(counter, owner, fc.nat(20), (count, who, writes) => {
        const token = new FenceToken(count, who);
        const first = token.held;
        for (let i = 0; i < writes; i++) token.issue();
        if (writes > 0) token.advance();
        expect(token.held >= first && token.givenBack > token.held).toBe(true);
        expect([isHeld(token.held), isHeld(token.givenBack)]).toEqual([true, false]);
        expect([token.held.includes(GIVEN_BACK), token.givenBack.includes(GIVEN_BACK)]).toEqual([
          false,
          true,
        ]);
      }),
    );
  });

  it("of a greater counter is greater than all of a smaller one, held or given back", () => {
    fc.assert(
      fc.property(counter, counter, owner, owner, (a, b, one, other) => {
        fc.pre(a < b);
        expect(new FenceToken(b, other).held > new FenceToken(a, one).givenBack).toBe(true);
        expect(counterAhead([new FenceToken(b, one).held, undefined, "old"])).toBeGreaterThan(b);
      }),
    );
  });

  it("is greater than any that an older library wrote, which is held until it is removed", () => {
    fc.assert(
      fc.property(owner, (old) => {
        expect(new FenceToken(0, "new").held > old).toBe(true);
        expect(isHeld(old)).toBe(true);
      }),
    );
    expect(isHeld(undefined)).toBe(false);
  });

  it("is not issued twice, also where a write was refused", () => {
    const token = new FenceToken(1, "owner");
    const refused = token.issue();
    expect(token.held).not.toBe(refused);
    expect(token.issue()).not.toBe(refused);
  });
});
