import type { SourceMessage } from "../../../change/change-stream.ts";

/** What goes into the stream at the place of a logical message of ours: rows of a chunk, a control event. */
export interface Delivery {
  /** What to acknowledge when everything before it is durable, and this: where the message's record ends. */
  readonly lsn: bigint;
  /** What goes there. An error in it ends the backfill, not the stream. */
  readonly slices: Iterable<readonly SourceMessage[]>;
  /** All of it was given. */
  given(): void;
  /** It could not be given whole: what was given does no harm. */
  failed(error: unknown): void;
}
