import { PLACE } from "../../../change/event-envelope.ts";
import { commitPrefix, formatOrdinal, type PositionText, parsePosition } from "../../../change/position.ts";
import type { EventBytes } from "./event-bytes.ts";
import type { Begin } from "./pgoutput/messages.ts";

const POSTGRES_EPOCH_MS = 946_684_800_000;

/** A transaction being read: what its changes share, computed once. */
export interface Transaction {
  readonly begin: Begin;
  readonly epoch: number;
  /** Commit time, milliseconds since 1970 UTC. */
  readonly timeMs: number;
  /** Holds what follows, as UTF-8. */
  readonly bytes: Buffer;
  /** `[head, tail)`: members of `source` up to the LSN's digits. */
  readonly head: number;
  /** `[tail, prefix)`: members of `source` behind the LSN's digits and up to the ordinal's. */
  readonly tail: number;
  /** `[prefix, end)`: the first 24 characters of its positions. */
  readonly prefix: number;
  readonly end: number;
  /** Row changes counted so far (rule 1): an update counts two, each table of a truncate one. */
  ordinal: number;
  /** Logical messages counted so far. */
  messages: number;
  /** Ordinals up to this one were given before, on an earlier connection. */
  readonly given: number;
  /** Changes that were put aside before: the `asidePlace` of each. */
  aside: ReadonlySet<string> | undefined;
}

/** Milliseconds since 1970 UTC. */
export function commitTimeMs({ commitTime }: Pick<Begin, "commitTime">): number {
  // A number to the microsecond until the year 2255.
  const micros = Number(commitTime);
  return (micros - (micros % 1000)) / 1000 + POSTGRES_EPOCH_MS;
}

/** The last change given: which transaction, and which of its changes. */
export interface LastGiven {
  commitLsn: bigint;
  ordinal: number;
}

const MAX_LSN = 0xffffffffffffffffn;

/** The last change given to a stream that goes on behind a position, in the numbering of `epoch`; undefined: none. */
export function lastGiven(resumeAfter: PositionText | undefined, epoch: number): LastGiven {
  if (resumeAfter === undefined) return { commitLsn: -1n, ordinal: 0 };
  const last = parsePosition(resumeAfter);
  // Of another epoch all were given, or none.
  const all = last.epoch > epoch ? MAX_LSN : -1n;
  return { commitLsn: last.epoch === epoch ? last.commitLsn : all, ordinal: last.ordinal };
}

/** The place before the first change of a position's transaction. */
export function firstOf(position: PositionText): PositionText {
  const { epoch, commitLsn } = parsePosition(position);
  return commitPrefix(epoch, commitLsn) + formatOrdinal(0);
}

/** Most that is written of a transaction. */
const SHARED_BYTES = 256;
const SLASH = Buffer.from("/");
const TX_ID = Buffer.from(PLACE.txId);
const LSN = Buffer.from(PLACE.lsn);
const COMMIT_LSN = Buffer.from(PLACE.commitLsn);
const EPOCH = Buffer.from(PLACE.epoch);
const TIME = Buffer.from(PLACE.timeMs);
const ORDINAL = Buffer.from(PLACE.ordinal);

/** Opens a transaction. What its changes share is written to `out`. */
export function openTransaction(
  begin: Begin,
  epoch: number,
  last: Readonly<LastGiven>,
  out: EventBytes,
): Transaction {
  const { commitLsn } = begin;
  const timeMs = commitTimeMs(begin);
  const high = Number(BigInt.asUintN(64, commitLsn) >> 32n);
  const low = Number(BigInt.asUintN(32, commitLsn));
  out.begin();
  // All in one place.
  out.reserve(SHARED_BYTES);
  const head = out.length;
  out.copy(TX_ID);
  out.number(begin.xid);
  out.copy(LSN);
  const tail = out.length;
  out.copy(COMMIT_LSN);
  out.hex(high);
  out.copy(SLASH);
  out.hex(low);
  out.copy(EPOCH);
  out.number(epoch);
  out.copy(TIME);
  out.number(timeMs);
  out.copy(ORDINAL);
  const prefix = out.length;
  out.hex(epoch, true);
  out.hex(high, true);
  out.hex(low, true);
  return {
    begin,
    epoch,
    timeMs,
    bytes: out.bytes,
    head,
    tail,
    prefix,
    end: out.length,
    ordinal: 0,
    messages: 0,
    aside: undefined,
    given:
      commitLsn < last.commitLsn ? Number.POSITIVE_INFINITY : commitLsn === last.commitLsn ? last.ordinal : 0,
  };
}
