import type { PositionText } from "../../change/position.ts";

/** Longer lists are left out: what they tell of is called again. The fence's item holds 32 partitions. */
const MAX_LENGTH = 2_048;

/**
 * Positions beyond the checkpoint whose changes took effect although an earlier one did not (`FailedEvents`), as the fence
 * holds them: what all begin with, a colon, and how each ends. Undefined where there are none, or too many.
 */
export function formatDone(positions: readonly PositionText[]): string | undefined {
  const [first] = positions;
  if (first === undefined) return undefined;
  let common = first.length;
  for (const position of positions) while (!position.startsWith(first.slice(0, common))) common--;
  const text = `${first.slice(0, common)}:${positions.map((position) => position.slice(common)).join(",")}`;
  return text.length <= MAX_LENGTH ? text : undefined;
}

/** Reads what `formatDone` wrote; nothing where it is something else. */
export function parseDone(text: unknown): PositionText[] {
  if (typeof text !== "string") return [];
  const [, common, ends] = /^(\w*):([\w,]*)$/.exec(text) ?? [];
  return ends === undefined ? [] : ends.split(",").map((end) => common + end);
}
