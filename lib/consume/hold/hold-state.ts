import type { PositionText } from "../../change/position.ts";

/**
 * A range of the stream, both ends excluded, from which records are missing in the hold (see `sequenceKey`), and the
 * position that what is held before it ends at.
 */
export type Hole = readonly [from: string, to: string, position: PositionText];

/** A partition whose records are held until somebody acts. */
export interface PartitionHold {
  /** Names its records, and with an asterisk before it its dead letter. */
  readonly id: string;
  /** Up to here everything took effect or is held, and the newest writer there. */
  readonly intake: { readonly position: PositionText; readonly writer: number };
  /** Class of the error that it waits for. */
  readonly cause: string;
  /** Since when, ISO 8601. */
  readonly since: string;
  /** The last record that is held: what stands behind it was left by a process that died. */
  readonly last: string;
  /** Bytes of the records that are held. */
  readonly bytes: number;
  readonly holes: readonly Hole[];
  /**
   * Until when records may have expired unread, for each time that the shard was left unread while the partition was held and
   * an earlier such time was open still.
   */
  readonly expired?: readonly number[] | undefined;
  /** Tries since the last progress, and the time of the next one, in milliseconds since 1970. */
  readonly tries: number;
  readonly nextTry: number;
}
