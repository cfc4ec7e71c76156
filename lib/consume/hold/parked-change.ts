import type { ClaimCheck } from "../../change/claim-check.ts";
import type { PositionText } from "../../change/position.ts";
import type { DeadLetterError } from "../dead-letter/dead-letter.ts";

/** One parked or dead change: the event's JSON, or where it stands. */
export interface StoredChange {
  readonly position: PositionText;
  /** As `schema.table`, for truncates. */
  readonly table: string;
  readonly json?: string;
  readonly claim?: ClaimCheck;
}

/** The record of an open dead letter: of the change that began its chain. */
export interface StoredDeadLetter extends ChainPlace {
  /** The key as people write it. */
  readonly key: string;
  readonly table: string;
  readonly position: PositionText;
  /** Handler calls for the first change of the chain that did not take effect. */
  readonly attempts: number;
  readonly firstFailedAt: string;
  readonly lastFailedAt: string;
  readonly error: DeadLetterError;
  /** The last change of the chain that redrive brought to effect. */
  readonly applied?: PositionText;
  /** The change that failed last in a redrive; see `failedOf`. */
  readonly failed?: PositionText;
  /** A redrive has begun with it, and did not come back. */
  readonly trying?: boolean;
  /** A later change of its key, or a reset, has begun: where no list has the chain any more, that came instead. */
  readonly overtaken?: boolean;
  /** A later change took effect instead: redrive refuses it. */
  readonly superseded?: boolean;
}

/** The partition and the name of a chain of changes. */
export interface ChainPlace {
  readonly topic: string;
  readonly partition: number;
  readonly chain: string;
}
