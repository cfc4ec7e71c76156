/**
 * The place of a change in the source's history: `(epoch, commitLsn, ordinal)`, a total order.
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

/** Before every position: the checkpoint of a partition nothing of which took effect. */
export const START_OF_HISTORY: PositionText = /* @__PURE__ */ "0".repeat(34);

const POSITION = /^([0-9A-F]{8})([0-9A-F]{16})([0-9]{10})$/;

/** The text of a position. */
export function formatPosition(position: Position): PositionText {
  return commitPrefix(position.epoch, position.commitLsn) + formatOrdinal(position.ordinal);
}

/**
 * The text of a position whose commit LSN stands there as PostgreSQL prints it, and has been checked. Consumers make one
 * for every event: letter by letter into one buffer, without the strings in between.
 */
export function printedPosition(epoch: number, commitLsn: string, ordinal: number): PositionText {
  if (epoch !== written.epoch) {
    written.text.write(hex(epoch, 8), "latin1");
    written.epoch = epoch;
  }
  const slash = commitLsn.indexOf("/");
  writeHex(commitLsn, 0, slash, 16);
  writeHex(commitLsn, slash + 1, commitLsn.length, 24);
  writeOrdinal(ordinal);
  return written.text.toString("latin1");
}

const LENGTH = 34;
const ZERO = 48;
/** The position that was printed last. */
const written = { text: Buffer.alloc(LENGTH, ZERO), epoch: -1 };

/** Writes 8 hex digits that end before `end`: a part of a text, in upper case. */
function writeHex(text: string, from: number, to: number, end: number): void {
  const digits = end - (to - from);
  for (let i = end - 8; i < digits; i++) written.text[i] = ZERO;
  for (let i = digits, at = from; i < end; i++, at++) {
    const letter = text.charCodeAt(at);
    // a to f
    written.text[i] = letter > 96 ? letter - 32 : letter;
  }
}

function writeOrdinal(ordinal: number): void {
  let left = ordinal;
  for (let i = LENGTH - 1; i >= 24; i--) {
    if (left === 0) {
      written.text[i] = ZERO;
      continue;
    }
    const tens = Math.floor(left / 10);
    written.text[i] = ZERO + (left - tens * 10);
    left = tens;
  }
}

/** The part of the text that all changes of one transaction share (24 characters). */
export function commitPrefix(epoch: number, commitLsn: bigint): string {
  return hex(epoch, 8) + hex(commitLsn, 16);
}

/** The last 10 characters of the text. */
export function formatOrdinal(ordinal: number): string {
  return ordinal.toString().padStart(10, "0");
}

/** Returns whether the log itself has a change at a position. Ordinals of changes start at 1; what capture puts before a place of the log has 0. */
export function isOwnPlace(position: PositionText): boolean {
  return isPosition(position) && !position.endsWith(NO_ORDINAL);
}

const NO_ORDINAL = /* @__PURE__ */ "0".repeat(10);

/** Returns true if a text has the form of a position. */
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
