import type { PositionText } from "../../change/position.ts";
import { murmur3 } from "../../change/topic.ts";

/** Changes on which the checker's handler `dead-letters` fails every time: one in forty. */
export function isPoisoned(position: PositionText): boolean {
  return murmur3(position) % 40 === 0;
}
