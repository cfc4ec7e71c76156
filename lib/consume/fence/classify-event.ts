import type { PositionText } from "../../change/position.ts";

/** The end of what was seen of a partition: the value that its next event is compared with. */
export interface SeenEvents {
  /** Position of the last change that was found to be the next one. */
  readonly position: PositionText;
  /** Highest writer generation among the records of such changes and of their duplicates. */
  readonly writer: number;
  /** See `CheckpointValue.explained`. */
  readonly explained?: PositionText | undefined;
}

/** Returns whether a newer writer than a record's was seen: the record is dropped then (rule 8). */
export function isStaleWriter(seen: SeenEvents, writer: number): boolean {
  return writer < seen.writer;
}

/** `apply`: it is the next one. `duplicate`: it took effect before. `gap`: a change before it never came (rule 7). */
export type EventClass = "apply" | "duplicate" | "gap";

/**
 * Tells the next event of a partition from a duplicate and from one behind a gap; event by event, never record by record.
 * A null `after` is the first event of a writer, which starts at or before what the fence has seen.
 */
export function classifyEvent(
  seen: SeenEvents,
  position: PositionText,
  after: PositionText | null,
): EventClass {
  if (position <= seen.position) return "duplicate";
  if (after !== null && after > seen.position && after !== seen.explained) return "gap";
  return "apply";
}
