import type { PositionText } from "../../change/position.ts";

/** What a partition's next event is judged by: what was judged before it, or where the partition's checkpoint stands. */
export interface Seen {
  /** Position of the last change that was found to be the next one. */
  readonly mark: PositionText;
  /** Highest writer generation among the records of such changes and of their duplicates. */
  readonly writer: number;
  /** See `CheckpointValue.explained`. */
  readonly explained?: PositionText | undefined;
}

/** Whether a record's writer still counts: once a newer one was seen, an older one is dropped (rule 8). */
export function isStaleWriter(seen: Seen, writer: number): boolean {
  return writer < seen.writer;
}

/** `apply`: it is the next one. `duplicate`: it took effect before. `gap`: a change before it never came (rule 7). */
export type Verdict = "apply" | "duplicate" | "gap";

/**
 * Judges one event; event by event, never record by record. A null `after` is the first event of a writer, which
 * starts at or before what the fence has seen.
 */
export function judge(seen: Seen, position: PositionText, after: PositionText | null): Verdict {
  if (position <= seen.mark) return "duplicate";
  if (after !== null && after > seen.mark && after !== seen.explained) return "gap";
  return "apply";
}
