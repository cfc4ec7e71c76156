import { expect, test } from "vitest";
import { changesBySlot } from "../../../lib/testing/checker/slot-history.ts";
import type { TruthChange } from "../../../lib/testing/checker/truth.ts";
import { readOptions } from "../../fault/options.ts";

const change = (commit: number, table: string, op: TruthChange["op"], ordinal: number): TruthChange => ({
  ...{ table, op, commitLsn: BigInt(commit), endLsn: BigInt(commit + 1), ordinal, key: ["1"] },
});
const changes = [
  change(10, "x", "u", 1),
  change(10, "y", "c", 3),
  change(10, "x", "c", 4),
  change(20, "y", "c", 1),
  change(30, "y", "c", 1),
  change(30, "x", "c", 2),
];
const owned = (...of: Parameters<typeof changesBySlot>) =>
  changesBySlot(...of).map(({ slot, ordinal }) => `${slot}${ordinal}`);

test("a table's slot is the one that had it at the commit, and each slot counts its own ordinals", () => {
  const now = new Map([
    ["x", "a"],
    ["y", "c"],
  ]);
  const moves = [
    { commitLsn: 15n, from: "a", tables: ["y"] },
    { commitLsn: 25n, from: "b", tables: ["y"] },
  ];
  expect(owned(changes, now, moves, "a")).toEqual(["a1", "a3", "a4", "b1", "c1", "a1"]);
  expect(owned(changes, now, [], "a")).toEqual(["a1", "c1", "a3", "c1", "c1", "a1"]);
  expect(owned(changes, new Map(), [], "a")).toEqual(["a1", "a3", "a4", "a1", "a1", "a2"]);
  expect(() => owned(changes, new Map([["x", "a"]]), [], "a")).toThrow("no slot's publication holds y");
});

test("a wrong option names itself, its value and what to write", () => {
  expect(readOptions(["--slots", "2", "--seeds", "1,2"])).toMatchObject({ slots: 2, seeds: [1, 2] });
  expect(() => readOptions(["--slots", "17", "--seed", "x"])).toThrow(
    /--seed: .*"x"[\s\S]*--slots: write a whole number from 1 to 16 \(got "17"\)/,
  );
  expect(() => readOptions(["--only", "("])).toThrow("--only");
  expect(() => readOptions(["--slotz", "2"])).toThrow("--slotz");
});
