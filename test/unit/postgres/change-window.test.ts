import { describe, expect, test } from "vitest";
import {
  ChangeWindow,
  WindowMemory,
  type WindowPlan,
} from "../../../lib/source/postgres/backfill/change-window.ts";
import { NULL, Tuple, UNCHANGED } from "../../../lib/source/postgres/decode/pgoutput/tuple.ts";

const text = { keyText: (buffer: Buffer, start: number, end: number) => buffer.toString("utf8", start, end) };
const PLAN = {
  columns: ["id", "big", "other"].map((name) => ({ name, type: text })),
  sourceTail: ',"schemaVersion":"1"',
} as unknown as WindowPlan;

/** A row of a message: undefined for a value that did not travel. */
function message(...values: readonly (string | null | undefined)[]): { buffer: Buffer; row: Tuple } {
  const buffer = Buffer.from(values.map((value) => value ?? "").join(""));
  const row = new Tuple();
  row.reserve(values.length);
  let at = 0;
  values.forEach((value, i) => {
    row.start[i] = value === undefined ? UNCHANGED : value === null ? NULL : at;
    at += value?.length ?? 0;
    row.end[i] = at;
  });
  return { buffer, row };
}

function update(window: ChangeWindow, ...values: readonly (string | null | undefined)[]): void {
  const { buffer, row } = message(...values);
  window.updated(buffer, PLAN, row, undefined, false);
}

describe("the window of a chunk", () => {
  test("what an earlier change of the window showed stands in what is kept of the row", () => {
    const window = new ChangeWindow(["id"], new WindowMemory());
    update(window, "7", undefined, undefined);
    update(window, "7", "shown", undefined);
    update(window, "7", undefined, undefined);
    const row = window.verdict("7");
    expect([...(row?.missing ?? [])]).toEqual([2]);
    expect(row?.message.toString("utf8", row.start[1], row.end[1])).toBe("shown");
    expect(row?.message.toString("utf8", row.start[0], row.end[0])).toBe("7");
    expect(row?.start[2]).toBe(UNCHANGED);
  });

  test("a row that moved to another key is dropped under both keys", () => {
    for (const whole of [false, true]) {
      const window = new ChangeWindow(["id"], new WindowMemory());
      const old = message("7", whole ? "was" : null, null);
      const { buffer, row } = message("8", "is", "more");
      // One message holds both, the old row behind the new one.
      for (let i = 0; i < old.row.count; i++) {
        if ((old.row.start[i] as number) < 0) continue;
        old.row.start[i] = (old.row.start[i] as number) + buffer.length;
        old.row.end[i] = (old.row.end[i] as number) + buffer.length;
      }
      window.updated(Buffer.concat([buffer, old.buffer]), PLAN, row, old.row, whole);
      expect([window.verdict("7"), window.verdict("8"), window.verdict("9")]).toEqual([
        null,
        null,
        undefined,
      ]);
    }
  });

  test("a change that does not hold the chunk's key makes it say nothing", () => {
    const window = new ChangeWindow(["id"], new WindowMemory());
    const { buffer, row } = message(null, "b", "c");
    window.deleted(buffer, PLAN, row);
    expect(window.keyless).toBe(true);
  });

  test("a row that changes over and over takes its memory once, and what was let go of counts no more", () => {
    const memory = new WindowMemory(10_000);
    const window = new ChangeWindow(["id"], memory);
    for (let n = 0; n < 1_000; n++) update(window, "7", `${n}`, undefined);
    expect([memory.bytes < 1_000, window.overfull]).toEqual([true, false]);
    for (let n = 0; n < 1_000; n++) update(window, `${n}`, "a", "b");
    expect([memory.bytes, window.overfull]).toEqual([0, true]);
  });
});
