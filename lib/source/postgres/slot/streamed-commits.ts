import type { CommitFingerprint } from "./slot-record.ts";

const SMALLEST = 1024;

/**
 * Commits that were streamed and wait for their acknowledgement, oldest first. They stand in arrays of numbers: an object
 * for each, alive for a round trip, is what the garbage collector would copy most (docs/13-speed.md).
 */
export class StreamedCommits {
  readonly #maxCommits: number;
  #lsns = new BigUint64Array(SMALLEST);
  #times = new BigInt64Array(SMALLEST);
  #xids = new Uint32Array(SMALLEST);
  /** They stand at `[#start, #end)`. */
  #start = 0;
  #end = 0;

  /** `maxCommits`: how many wait at most. */
  constructor(maxCommits: number) {
    this.#maxCommits = maxCommits;
  }

  /** Takes one. Tells whether the oldest had to be forgotten for it. */
  add({ commitLsn, commitTime, xid }: CommitFingerprint): boolean {
    const full = this.#end - this.#start >= this.#maxCommits;
    if (full) this.#start++;
    if (this.#end === this.#lsns.length) this.#move();
    this.#lsns[this.#end] = commitLsn;
    this.#times[this.#end] = commitTime;
    this.#xids[this.#end] = xid;
    this.#end++;
    return full;
  }

  /** Takes those before `lsn` out. Gives how many they were, and the latest of them, `count` at most. */
  take(lsn: bigint, count: number): { readonly taken: number; readonly latest: CommitFingerprint[] } {
    let end = this.#start;
    while (end < this.#end && (this.#lsns[end] as bigint) < lsn) end++;
    const taken = end - this.#start;
    const latest = this.#list(Math.max(this.#start, end - count), end);
    this.#start = end;
    return { taken, latest };
  }

  /** All of them, oldest first. */
  get all(): CommitFingerprint[] {
    return this.#list(this.#start, this.#end);
  }

  #list(start: number, end: number): CommitFingerprint[] {
    return Array.from({ length: end - start }, (_, i) => ({
      commitLsn: this.#lsns[start + i] as bigint,
      xid: this.#xids[start + i] as number,
      commitTime: this.#times[start + i] as bigint,
    }));
  }

  /** Makes room behind the last one: to the arrays' start, or into larger ones. */
  #move(): void {
    const { length } = this.#lsns;
    const waiting = this.#end - this.#start;
    const larger = waiting > length / 2 ? length * 2 : length;
    this.#lsns = moved(this.#lsns, new BigUint64Array(larger), this.#start);
    this.#times = moved(this.#times, new BigInt64Array(larger), this.#start);
    this.#xids = moved(this.#xids, new Uint32Array(larger), this.#start);
    this.#start = 0;
    this.#end = waiting;
  }
}

function moved<T extends { subarray(start: number): T; set(from: T): void }>(
  from: T,
  to: T,
  start: number,
): T {
  to.set(from.subarray(start));
  return to;
}
