import type { SourcePlace } from "../change/change-stream.ts";

/** Place that may be confirmed to the source. */
export interface Acknowledged<Place extends SourcePlace = bigint> {
  readonly place: Place;
  /** Commit time at the server, milliseconds since 1970 UTC; undefined where no commit was acknowledged yet. */
  readonly commitTimeMs: number | undefined;
}

/** Transactions of one moment; a long one is a group of its own or, where it began behind others, the next one. */
interface Group<Place extends SourcePlace> {
  /** Event copies not yet stored. */
  outstanding: number;
  /** A commit was seen, or another end. */
  closed: boolean;
  /** Place to acknowledge when it is stored: of the latest commit. Undefined: nothing beyond the group before. */
  place: Place | undefined;
  commitTimeMs: number | undefined;
  /** Time of its first message, milliseconds. */
  readonly since: number;
  /** Called when all of it and all before it are stored. */
  receipts?: (() => void)[];
}

/**
 * Commit-order accounting: a commit's end may be acknowledged when every event of its transaction and of all
 * before it is stored; an idle place likewise in its own turn (rule 20). Pure.
 *
 * Transactions that come in one moment, as one batch of the source does, are counted as one group, and acknowledged together
 * by the last commit of them: small transactions come by the thousand, and what is kept for each would be kept for a
 * round trip. A group may hold the beginning of a transaction whose commit stands in a later one: its own commits
 * then wait for those events too. Holds at most one group per unstored event.
 */
export class Acknowledgements<Place extends SourcePlace = bigint> {
  /** Groups in commit order from number `#first`. The last one is not done: once all are, they are cut off. */
  #groups: Group<Place>[] = [];
  #first = 0;
  /** Groups at the array's start that are done and not yet cut off. */
  #done = 0;
  /** Events came since the last commit. */
  #open = false;
  #acknowledged: Acknowledged<Place> | undefined;

  /** Counts an event copy of the open transaction; gives the number of its group for `settle`. */
  add(now: number): number {
    let group = this.#groups.at(-1);
    if (group === undefined || (group.closed && group.since !== now)) {
      group = { outstanding: 0, closed: false, place: undefined, commitTimeMs: undefined, since: now };
      this.#groups.push(group);
    }
    this.#open = true;
    group.outstanding++;
    return this.#first + this.#groups.length - 1;
  }

  /** The open transaction is whole; without one, a transaction of which nothing was published. */
  commit(place: Place, commitTimeMs: number, now: number): void {
    this.#open = false;
    this.#close(place, commitTimeMs, now);
  }

  /** Nothing happened up to here. Inside a transaction it says nothing: its commit will. */
  idle(place: Place, now: number): void {
    if (!this.#open) this.#close(place, undefined, now);
  }

  /** Calls `stored` when everything offered so far is stored, at once where it is. Between transactions. */
  receipt(stored: () => void, now: number): void {
    const last = this.#groups.at(-1);
    if (last === undefined) {
      stored();
      return;
    }
    last.receipts ??= [];
    last.receipts.push(stored);
    this.#open = false;
    this.#close(last.place, undefined, now);
  }

  /** Copies of events of a group were stored. */
  settle(group: number, copies: number): void {
    const settled = this.#groups[group - this.#first] as Group<Place>;
    settled.outstanding -= copies;
    if (settled.outstanding < 0) throw new Error("more events stored than offered");
    this.#advance();
  }

  /** The furthest that may be acknowledged, or undefined before the first. Never goes backwards. */
  get acknowledged(): Acknowledged<Place> | undefined {
    return this.#acknowledged;
  }

  /** Time of the oldest message that is not yet acknowledged, or undefined when all are. */
  get oldestSince(): number | undefined {
    return this.#groups[this.#done]?.since;
  }

  #close(place: Place | undefined, commitTimeMs: number | undefined, now: number): void {
    let last = this.#groups.at(-1);
    if (last === undefined) {
      last = { outstanding: 0, closed: false, place: undefined, commitTimeMs: undefined, since: now };
      this.#groups.push(last);
    }
    last.closed = true;
    last.place = place;
    last.commitTimeMs = commitTimeMs ?? last.commitTimeMs;
    this.#advance();
  }

  #advance(): void {
    for (;;) {
      const oldest = this.#groups[this.#done];
      if (oldest === undefined || oldest.outstanding > 0 || !oldest.closed) break;
      const before = this.#acknowledged;
      const { place } = oldest;
      if (place !== undefined) {
        this.#acknowledged = {
          place: before !== undefined && before.place > place ? before.place : place,
          commitTimeMs: oldest.commitTimeMs ?? before?.commitTimeMs,
        };
      }
      this.#done++;
      for (const stored of oldest.receipts ?? []) stored();
    }
    if (this.#done > 0 && this.#done * 2 >= this.#groups.length) {
      this.#groups = this.#groups.slice(this.#done);
      this.#first += this.#done;
      this.#done = 0;
    }
  }
}
