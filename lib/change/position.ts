/**
 * Where a change stands in the source's history: `(epoch, commitLsn, ordinal)`, a total order.
 * Ordinals count row changes inside a transaction from 1; an update takes two (its delete part and its
 * create part may become two events); nothing but row changes counts.
 */
export interface Position {
  /** Grows by one when history starts anew (new slot, restored database). */
  readonly epoch: number;
  /** LSN of the transaction's commit record. */
  readonly commitLsn: bigint;
  /** Place inside the transaction, from 1. */
  readonly ordinal: number;
}

/**
 * A position as fixed-width text: 8 hex digits of epoch, 16 of commit LSN, 10 decimal digits of ordinal.
 * Text order is position order, so `<` on two texts compares positions. It is also `event.id`.
 */
export type PositionText = string;

/** Before every position: the mark of a partition nothing of which took effect. */
export const START_OF_HISTORY: PositionText = "0".repeat(34);

const POSITION = /^([0-9A-F]{8})([0-9A-F]{16})([0-9]{10})$/;

/** The text of a position. */
export function formatPosition(position: Position): PositionText {
  return commitPrefix(position.epoch, position.commitLsn) + formatOrdinal(position.ordinal);
}

/** The text of a position whose commit LSN stands there as PostgreSQL prints it, and has been checked. */
export function printedPosition(epoch: number, commitLsn: string, ordinal: number): PositionText {
  const slash = commitLsn.indexOf("/");
  const high = commitLsn.slice(0, slash).padStart(8, "0");
  const low = commitLsn.slice(slash + 1).padStart(8, "0");
  return hex(epoch, 8) + (high + low).toUpperCase() + formatOrdinal(ordinal);
}

/** The part of the text that all changes of one transaction share (24 characters). */
export function commitPrefix(epoch: number, commitLsn: bigint): string {
  return hex(epoch, 8) + hex(commitLsn, 16);
}

/** The last 10 characters of the text. */
export function formatOrdinal(ordinal: number): string {
  return ordinal.toString().padStart(10, "0");
}

/** Whether a text is one of a position. */
export function isPosition(text: string): text is PositionText {
  return POSITION.test(text);
}

/** Throws `RangeError` naming the text when it is not 34 characters of position. */
export function parsePosition(text: PositionText): Position {
  const match = POSITION.exec(text);
  if (!match)
    throw new RangeError(`not a position: "${text}" (expected 8 + 16 hex digits and 10 decimal digits)`);
  return {
    epoch: Number.parseInt(match[1] as string, 16),
    commitLsn: BigInt(`0x${match[2]}`),
    ordinal: Number(match[3]),
  };
}

function hex(value: number | bigint, width: number): string {
  return value.toString(16).toUpperCase().padStart(width, "0");
}
