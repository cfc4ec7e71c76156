import { describe, expect, it } from "vitest";
import { Checkpoint, hasReached } from "../../../lib/consume/fence/checkpoint.ts";
import { at } from "./records.ts";

const attempts = { from: at(4), to: at(5), count: 2, calls: 1, since: "2026-01-01T00:00:00.000Z" };

describe("a checkpoint", () => {
  it("only moves forward, in position and generation", () => {
    const checkpoint = new Checkpoint({ position: at(3), writer: 2 }, at(1));
    checkpoint.reach(at(2), 1);
    expect(checkpoint.value(undefined)).toEqual({ position: at(3), writer: 2, attempts: undefined });
    checkpoint.reach(at(4), 3);
    expect(checkpoint.value(undefined)).toEqual({ position: at(4), writer: 3, attempts: undefined });
  });

  it("begins at the start position, if that is behind it", () => {
    expect(new Checkpoint({}, at(7)).value(undefined)).toEqual({
      position: at(7),
      writer: 0,
      attempts: undefined,
    });
    expect(new Checkpoint({ position: at(9), writer: 4 }, at(7)).position).toBe(at(9));
  });

  it("keeps calls on record until the last of their changes is done", () => {
    const checkpoint = new Checkpoint({ position: at(3), writer: 1, attempts }, at(1));
    checkpoint.reach(at(4), 1);
    expect(checkpoint.value(undefined).attempts).toEqual(attempts);
    checkpoint.reach(at(5), 1);
    expect(checkpoint.value(undefined).attempts).toBeUndefined();
    expect(new Checkpoint({ position: at(3), writer: 1, attempts }, at(5)).attempts).toBeUndefined();
  });

  it("is reached by what stands as far and has seen as new a writer", () => {
    const value = { position: at(3), writer: 2, attempts: undefined };
    expect(hasReached({ position: at(3), writer: 2 }, value)).toBe(true);
    expect(hasReached({ position: at(4), writer: 1 }, value)).toBe(false);
    expect(hasReached({ position: at(2), writer: 3 }, value)).toBe(false);
    expect(hasReached({}, value)).toBe(false);
  });

  it("is reached by what a successor holds, but for what may lie in a hole of it", () => {
    const value = { position: at(5), writer: 1, attempts: undefined };
    const hold = { intake: { position: at(9), writer: 1 }, last: "9", holes: [] };
    const held = { position: at(3), writer: 1, hold };
    expect(hasReached(held, value)).toBe(true);
    expect(hasReached({ ...held, hold: { ...hold, holes: [["3", "9", at(3)]] } }, value)).toBe(false);
    expect(hasReached(held, { ...held, attempts: undefined, hold: { ...hold, last: "8" } })).toBe(true);
    expect(hasReached({ ...held, hold: { ...hold, last: "8" } }, { ...held, attempts: undefined })).toBe(
      false,
    );
    expect(hasReached({ position: at(9), writer: 1 }, { ...held, attempts: undefined })).toBe(false);
  });
});
