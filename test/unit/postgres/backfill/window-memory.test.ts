import { expect, test } from "vitest";
import { WindowMemory } from "../../../../lib/source/postgres/backfill/change-window.ts";

class Held {
  overflows = 0;
  readonly memory: WindowMemory;

  constructor(memory: WindowMemory) {
    this.memory = memory;
  }

  overflow(): void {
    this.overflows++;
  }
}

test("however many windows there are, together they keep no more than the bound: the largest lets go", () => {
  const memory = new WindowMemory(1_000);
  const windows = Array.from({ length: 32 }, () => new Held(memory));
  for (const [i, window] of windows.entries()) {
    for (let n = 0; n <= i; n++) memory.grow(window, 10);
    expect(memory.bytes).toBeLessThanOrEqual(1_000);
  }
  const overflown = windows.flatMap(({ overflows }, i) => (overflows > 0 ? [i] : []));
  expect(overflown.length).toBeGreaterThan(3);
  expect(Math.min(...overflown)).toBeGreaterThan(5);
  for (const window of windows) memory.release(window);
  expect(memory.bytes).toBe(0);
});
