import { formatLsn } from "../../../change/lsn.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import { HistoryForkedError } from "../postgres-errors.ts";
import type { CommitFingerprint } from "./slot-record.ts";

/**
 * Holds what the server sends again after a (re)connection against what it sent before (rule 19). A restored
 * backup can bear the same system id and enough WAL, and still tell another history.
 */
export class ReplayCheck {
  readonly #oldestKnown: bigint;
  readonly #expected: CommitFingerprint[];

  /** `known`: commits seen before, oldest first; those from `startLsn` on must come again. */
  constructor(known: readonly CommitFingerprint[], startLsn: bigint) {
    this.#oldestKnown = known[0]?.commitLsn ?? 0n;
    // The server sends a transaction again when its commit record starts at or after the slot's confirmed LSN.
    this.#expected = known.filter((commit) => commit.commitLsn >= startLsn);
  }

  /** Nothing more is to come again: what follows is new. */
  get done(): boolean {
    return this.#expected.length === 0;
  }

  /**
   * A BEGIN came. Tells whether its commit is new.
   * @throws HistoryForkedError
   */
  begin(commit: CommitFingerprint): boolean {
    const expected = this.#expected[0];
    if (expected === undefined) return true;
    if (commit.commitLsn < expected.commitLsn) {
      if (commit.commitLsn < this.#oldestKnown) return false;
      throw forked(commit.commitLsn, "no commit was there before, and one is now");
    }
    if (commit.commitLsn > expected.commitLsn)
      throw forked(expected.commitLsn, "a commit was there, and is not now");
    if (commit.xid !== expected.xid || commit.commitTime !== expected.commitTime) {
      throw forked(
        commit.commitLsn,
        `transaction ${expected.xid} was committed there, and now it is ${commit.xid === expected.xid ? "at another time" : commit.xid}`,
      );
    }
    this.#expected.shift();
    return false;
  }

  /**
   * The server has sent everything up to `lsn` (a keepalive outside a transaction).
   * @throws HistoryForkedError
   */
  passed(lsn: bigint): void {
    const expected = this.#expected[0];
    if (expected !== undefined && lsn > expected.commitLsn) {
      throw forked(expected.commitLsn, "a commit was there, and is not now");
    }
  }
}

function forked(lsn: bigint, difference: string): HistoryForkedError {
  return new HistoryForkedError({
    message: `the server's history is not the one we read before: at ${formatLsn(lsn)} ${difference}`,
    remedy: `The database was restored from a copy or failed over to a server that had not received everything. Consumers hold changes that it has lost, and a new epoch must begin: ${NEW_EPOCH_DROP_SLOT} (see docs, PostgreSQL, "A new epoch")`,
  });
}
