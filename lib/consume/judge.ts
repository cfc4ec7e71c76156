import type { PositionText } from "../change/position.ts";

/** What is known of a partition: how far changes took effect, and the newest writer seen in it. */
export interface Seen {
  /** Position of the last change that took effect or was passed. */
  readonly mark: PositionText;
  /** Highest writer generation of the records seen. */
  readonly writer: number;
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
  if (after !== null && after > seen.mark) return "gap";
  return "apply";
}
