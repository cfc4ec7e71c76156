import type { LeavesByRoot } from "../contract/leaves.ts";
import type { PublicationTerms, Sighting } from "../contract/terms.ts";
import type { KnownTables } from "../identity/known-tables.ts";

/** The state of the slot: kept outside the database, so that a restored or replaced server is noticed. */
export interface SlotState {
  readonly epoch: number;
  readonly slot: string;
  readonly publication: string;
  /** The publication's OID: one of the same name made anew is another. Undefined in records of before it was kept. */
  readonly publicationOid?: number | undefined;
  /** The publication's terms when it was last looked at (rule 40). Undefined in records of before it was kept. */
  readonly terms?: PublicationTerms | undefined;
  /** The partitions of captured tables when they were last looked at. */
  readonly leaves?: LeavesByRoot | undefined;
  /** Time and place at which both were last so. */
  readonly termsSeen?: Sighting | undefined;
  /** Tables that the captured names stand for, and their keys. Undefined in records of before they were kept. */
  readonly tables?: KnownTables | undefined;
  /** Truncates of whole partitioned tables in the log, whose partitions were not looked at since. */
  readonly truncates?: readonly SeenTruncate[] | undefined;
  readonly database: string;
  /** `systemid` of IDENTIFY_SYSTEM. */
  readonly systemId: string;
  readonly timeline: number;
  /** R of rule 19: everything up to here was acknowledged by Kinesis and may have been confirmed to the server. */
  readonly confirmedLsn: bigint;
  /** The latest commits up to `confirmedLsn`, oldest first: replayed ones must be the same, or history forked. */
  readonly recentCommits: readonly CommitFingerprint[];
  /** Changes that the stream may hold beyond `confirmedLsn`. Undefined in records of before it was kept: nothing is known. */
  readonly sent?: Sent | undefined;
}

/** Changes that the stream may hold from `confirmedLsn` on, although nobody knows that it was stored (rule 39). */
export interface Sent {
  /** No task that is not `writer` has written from further on. */
  readonly places: readonly LogPlace[];
  /** Generation of the task that writes, or wrote when it died; undefined once one has ended in order. */
  readonly writer?: number | undefined;
  /** Everything that `writer` wrote from `confirmedLsn` on came into the stream after this, in milliseconds since 1970 UTC. */
  readonly sinceMs?: number | undefined;
}

/**
 * A place of the log from which something was given to the stream: the server must still have it. The log grows at its end
 * alone, so who has what stood at one place has all that stood before it.
 */
export interface LogPlace {
  /** Of a position: where a commit record begins, or `placeOfMessage`. */
  readonly lsn: bigint;
  /** The transaction that was committed there, as its events tell it; undefined where that is not known, or it was no commit. */
  readonly commit?: { readonly xid: number; readonly timeMs: number } | undefined;
  /** It was a message outside transactions. */
  readonly message?: true | undefined;
}

/** A truncate of a whole partitioned table that came in the log. */
export interface SeenTruncate {
  /** OID of the table. */
  readonly root: number;
  readonly xid: number;
  /** Of its commit. */
  readonly lsn: bigint;
}

/** Tells one commit from another at the same LSN of a forked history. */
export interface CommitFingerprint {
  readonly commitLsn: bigint;
  readonly xid: number;
  /** Microseconds since 2000-01-01, as the log holds it. */
  readonly commitTime: bigint;
}

/** History that starts anew, by the act of an operator (`tributary epoch new`). */
export interface NewEpoch {
  readonly epoch: number;
  /** The place that the epoch before had confirmed; undefined where nothing was known of it. */
  readonly endedAt?: bigint | undefined;
}

/**
 * Keeps the slot state. `write` resolves only when the state is durable and was written under the capture
 * lease; feedback to the server goes out after it (rule 19).
 */
export interface SlotRecord {
  /** Carried by all that the task writes to the stream; undefined where there is no stream. */
  readonly generation?: number | undefined;
  read(): Promise<SlotState | undefined>;
  /** The epoch that a first start begins; undefined: the first one. */
  newEpoch(): Promise<NewEpoch | undefined>;
  /** @throws when the lease was lost: another capture task has taken over. */
  write(state: SlotState): Promise<void>;
  /** Looks whether the lease is still ours. @throws when it was lost: another capture task has taken over. */
  confirm(): Promise<void>;
}
