import { formatLsn } from "../../../change/lsn.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import { HistoryForkedError, ServerBehindError, TimelineForkedError } from "../postgres-errors.ts";
import type { SystemFacts } from "./slot.ts";
import type { CommitFingerprint, LogPlace } from "./slot-record.ts";

/** Milliseconds of 2000-01-01, from which the log counts its microseconds. */
const POSTGRES_EPOCH_MS = 946_684_800_000n;

/** Says what is lost, and what heals it, if the stream has changes that the server has not. */
export const FORKED_REMEDY = `The database was restored from a copy, or failed over to a server that had not received everything. Consumers hold changes that it has lost, what it committed since is in no stream, and what handlers did for the lost changes stays done. A new epoch must begin, which reads the tables again with a sweep: ${NEW_EPOCH_DROP_SLOT} (see docs, PostgreSQL, "A forked history")`;

/**
 * Checks whether the server's own facts tell already that it has lost places: its log ends before them, or it left the timeline that
 * they stand on. `history` holds the switch points of the current timeline's ancestors.
 * @throws ServerBehindError, TimelineForkedError
 */
export function checkPlaces(
  places: readonly LogPlace[],
  timeline: number,
  system: SystemFacts,
  history: ReadonlyMap<number, bigint>,
): void {
  const furthest = formatLsn(furthestOf(places));
  const left = system.timeline === timeline ? undefined : history.get(timeline);
  if (left !== undefined && left <= furthestOf(places)) {
    throw new TimelineForkedError({
      message: `the server is on timeline ${system.timeline}, which left timeline ${timeline} at ${formatLsn(left)}; the stream has changes of ${furthest} on that one`,
      remedy: FORKED_REMEDY,
    });
  }
  if (system.walEnd <= furthestOf(places)) {
    throw new ServerBehindError({
      message: `the server's log ends at ${formatLsn(system.walEnd)}, and the stream has changes of ${furthest}: its last commits are lost`,
      remedy: FORKED_REMEDY,
    });
  }
}

/** The last of the places; 0 where there is none. */
export function furthestOf(places: readonly LogPlace[]): bigint {
  return places.reduce((furthest, { lsn }) => (lsn > furthest ? lsn : furthest), 0n);
}

/** Of places that stand on one history: who has these has all of them. The last one, and the last whose transaction is known. */
export function lastPlaces(places: readonly LogPlace[]): LogPlace[] {
  const inOrder = [...places].sort((a, b) => (a.lsn < b.lsn ? -1 : a.lsn > b.lsn ? 1 : 0));
  const last = inOrder.at(-1);
  const commit = inOrder.findLast(({ commit }) => commit !== undefined);
  return [...(commit && commit !== last ? [commit] : []), ...(last ? [last] : [])];
}

/** The place of a commit. */
export function placeOfCommit({ commitLsn, xid, commitTime }: CommitFingerprint): LogPlace {
  return { lsn: commitLsn, commit: { xid, timeMs: timeMs(commitTime) } };
}

/**
 * Holds what the server sends against places that must be in it (rule 39). They need not be all that was there: what stands
 * between them says nothing.
 */
export class HistoryProof {
  /** In their order. */
  readonly #expected: LogPlace[];

  constructor(places: readonly LogPlace[]) {
    this.#expected = [...places].sort((a, b) => (a.lsn < b.lsn ? -1 : a.lsn > b.lsn ? 1 : 0));
  }

  /** All places were met. */
  get done(): boolean {
    return this.#expected.length === 0;
  }

  /** A BEGIN came. @throws HistoryForkedError */
  begin(found: CommitFingerprint): void {
    this.#gone(found.commitLsn);
    for (let place = this.#at(found.commitLsn); place; place = this.#at(found.commitLsn)) {
      const { commit, message } = place;
      if (message) throw forked(place, "a message was there, and now it is a commit");
      if (commit && (commit.xid !== found.xid || commit.timeMs !== timeMs(found.commitTime))) {
        const now = commit.xid === found.xid ? "at another time" : `by ${found.xid}`;
        throw forked(place, `transaction ${commit.xid} was committed there, and now it is committed ${now}`);
      }
      this.#expected.shift();
    }
  }

  /** A message outside transactions came. @throws HistoryForkedError */
  message(lsn: bigint): void {
    this.#gone(lsn);
    for (let place = this.#at(lsn); place; place = this.#at(lsn)) {
      if (place.commit) throw forked(place, "a commit was there, and now it is a message");
      this.#expected.shift();
    }
  }

  /** The server has sent everything up to `lsn`. @throws HistoryForkedError */
  passed(lsn: bigint): void {
    this.#gone(lsn);
  }

  #at(lsn: bigint): LogPlace | undefined {
    const [first] = this.#expected;
    return first?.lsn === lsn ? first : undefined;
  }

  /** @throws HistoryForkedError for a place before `lsn` that was not met. */
  #gone(lsn: bigint): void {
    const [first] = this.#expected;
    if (first && first.lsn < lsn)
      throw forked(first, `a ${first.message ? "message" : "commit"} was there, and is not now`);
  }
}

function timeMs(commitTime: bigint): number {
  return Number(commitTime / 1000n + POSTGRES_EPOCH_MS);
}

function forked({ lsn }: LogPlace, difference: string): HistoryForkedError {
  return new HistoryForkedError({
    message: `the server's history is not the one that the stream was written from: at ${formatLsn(lsn)} ${difference}`,
    remedy: FORKED_REMEDY,
  });
}
