import { describe, expect, test } from "vitest";
import {
  checkEffects,
  type Effect,
  type ExpectedEvent,
  type InvocationTimes,
} from "../../../lib/testing/checker/check.ts";

const pos = (n: number) => `00000001${n.toString().padStart(16, "0")}0000000001`;
const expected: ExpectedEvent[] = [1, 2, 3, 4, 5, 6].map((n) => ({
  topic: "t",
  position: pos(n),
  key: `k${n % 2}`,
}));
/** `"1a 2a"`: position 1 by invocation a, … All in the partition of their key. */
const effects = (text: string): Effect[] =>
  text.split(" ").map((word) => {
    const n = Number(word[0]);
    return { topic: "t", partition: n % 2, position: pos(n), invocation: word[1] as string };
  });
const check = (kind: "positions" | "append" | "once" | "parked", text: string, ended = "a b c") =>
  checkEffects(kind, expected, effects(text), times(ended));
/** `"a b"`: these ended, one after the other. */
const times = (ended: string): Map<string, InvocationTimes> =>
  new Map(
    ["a", "b", "c"].map((id, i) => [
      id,
      { startedAt: 10 * i, endedAt: ended.includes(id) ? 10 * i + 5 : undefined },
    ]),
  );
const zero = { lost: 0, extra: 0, outOfOrder: 0, duplicates: 0, tailDuplicates: 0, underWay: 0 };

describe("check of effects", () => {
  test("finds nothing where everything came once, in order per partition", () => {
    expect(check("append", "2a 1a 4a 6a 3b 5b")).toMatchObject({ ...zero, events: 6, examples: [] });
  });

  test("finds what is lost, extra and out of order", () => {
    expect(check("append", "1a 3a 2a 4a 6a")).toMatchObject({ ...zero, lost: 1 });
    expect(check("append", "1a 2a 3a 4a 5a 6a 9a")).toMatchObject({ ...zero, extra: 1 });
    expect(check("append", "3a 1a 2a 4a 5a 6a")).toMatchObject({ ...zero, outOfOrder: 1 });
    const moved = effects("1a 2a 3a 4a 5a 6a").map((e, i) => (i === 4 ? { ...e, partition: 7 } : e));
    expect(checkEffects("append", expected, moved, times("a b c"))).toMatchObject({ ...zero, outOfOrder: 1 });
  });

  test("where keys are parked, order counts key by key", () => {
    // Three keys in one partition: 1 and 4, 2 and 5, 3 and 6.
    const keyed = expected.map((event, i) => ({ ...event, key: `k${i % 3}` }));
    const one = (text: string) => effects(text).map((effect) => ({ ...effect, partition: 0 }));
    const parked = (text: string, ended = "a b c") => checkEffects("parked", keyed, one(text), times(ended));
    expect(parked("2a 3a 5a 6a 1b 4b")).toMatchObject({ ...zero, examples: [] });
    expect(parked("2a 3a 5a 6a 4b 1b")).toMatchObject({ ...zero, outOfOrder: 1 });
    expect(parked("2a 3a 5a 1b 4b 1c 4c 6c", "a c")).toMatchObject({ ...zero, tailDuplicates: 2 });
    expect(parked("2a 3a 5a 1b 4b 1c 6c", "a c")).toMatchObject({ ...zero, outOfOrder: 0, duplicates: 1 });
    expect(parked("1a 2a 3a 4a 5a 6a 4b")).toMatchObject({ ...zero, duplicates: 1 });
  });

  test("a duplicate is one, where the first invocation ended", () => {
    expect(check("append", "1a 2a 3a 4a 5a 6a 5b")).toMatchObject({ ...zero, duplicates: 1 });
    expect(check("once", "1a 2a 3a 4a 5a 6a 5b")).toMatchObject({ ...zero, duplicates: 1 });
    expect(check("append", "1a 2a 3a 4a 5a 6a 6a", "")).toMatchObject({ ...zero, duplicates: 1 });
  });

  test("append: a killed batch's tail may come again, but not its beginning alone", () => {
    expect(check("append", "1a 3a 2a 3b 5b 4b 6b", "b")).toMatchObject({ ...zero, tailDuplicates: 1 });
    expect(check("append", "1a 3a 2a 1b 3b 5b 4b 6b", "b")).toMatchObject({ ...zero, tailDuplicates: 2 });
    expect(check("append", "1a 3a 2a 1b 5b 4b 6b", "b")).toMatchObject({ ...zero, duplicates: 1 });
    expect(check("append", "1a 3a 1b 1c 3c 5c 2c 4c 6c", "c")).toMatchObject({ ...zero, tailDuplicates: 3 });
  });

  test("a replay that a run which did not arrive was looked at in is under way, not a duplicate", () => {
    const cut = (text: string, ended: string, arrived: boolean, kind: "append" | "once" = "append") =>
      checkEffects(kind, expected, effects(text), times(ended), arrived);
    // 1, 3 and 5 are of one partition; 5 had not come again.
    expect(cut("1a 3a 5a 1b 3b", "", false)).toMatchObject({ ...zero, lost: 3, underWay: 2 });
    expect(cut("1a 3a 5a 2c 4c 6c 1b 3b", "c", true)).toMatchObject({ ...zero, duplicates: 2 });
    // A replay that leaves one out, one that ended, one of an invocation that had ended: never allowed.
    expect(cut("1a 3a 5a 1b 5b", "", false)).toMatchObject({ duplicates: 1, underWay: 0 });
    expect(cut("1a 3a 5a 1b 3b", "b", false)).toMatchObject({ duplicates: 2, underWay: 0 });
    expect(cut("1a 3a 5a 1b 3b", "a", false)).toMatchObject({ duplicates: 2, underWay: 0 });
    expect(cut("1a 3a 5a 1b 3b", "", false, "once")).toMatchObject({ duplicates: 2, underWay: 0 });
  });

  test("once: only the last change of a killed invocation may come again", () => {
    expect(check("once", "1a 3a 2a 3b 5b 4b 6b", "b")).toMatchObject({ ...zero, tailDuplicates: 1 });
    expect(check("once", "1a 3a 2a 1b 3b 5b 4b 6b", "b")).toMatchObject({
      ...zero,
      tailDuplicates: 1,
      duplicates: 1,
    });
  });

  test("two invocations of one batch at once repeat each other: allowed to append, not to once", () => {
    const both = new Map([
      ["a", { startedAt: 0, endedAt: 10 }],
      ["b", { startedAt: 5, endedAt: 15 }],
    ]);
    const twice = effects("1a 1b 3b 2a 3a 5a 5b 4b 6b");
    expect(checkEffects("append", expected, twice, both)).toMatchObject({ ...zero, tailDuplicates: 3 });
    expect(checkEffects("once", expected, twice, both)).toMatchObject({ ...zero, duplicates: 3 });
  });

  test("positions: no visible duplicate, whatever was killed; what the sink left out is none", () => {
    expect(check("positions", "1a 2a 3a 4a 5a 6a 6b", "")).toMatchObject({ ...zero, duplicates: 1 });
    const leftOut = effects("1a 2a 3a 4a 5a 6a 6b").map((e, i) => (i === 6 ? { ...e, visible: false } : e));
    expect(checkEffects("positions", expected, leftOut, times(""))).toMatchObject(zero);
  });

  test("a truncate is due in every partition", () => {
    const truncate: ExpectedEvent = { topic: "t", position: pos(7), partitions: 3, key: "" };
    const at = (partition: number): Effect => ({ topic: "t", partition, position: pos(7), invocation: "a" });
    const all = (...partitions: number[]) =>
      checkEffects("append", [truncate], partitions.map(at), times("a"));
    expect(all(0, 1, 2)).toMatchObject({ ...zero, events: 3 });
    expect(all(0, 2)).toMatchObject({ ...zero, lost: 1 });
    expect(all(0, 1, 2, 3)).toMatchObject({ ...zero, extra: 1 });
    expect(all(0, 1, 2, 2)).toMatchObject({ ...zero, duplicates: 1 });
  });
});
