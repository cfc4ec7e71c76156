/** What may be confirmed to the source. */
export interface Acknowledged {
  readonly lsn: bigint;
  /** Commit time at the server, milliseconds since 1970 UTC; undefined where no commit was acknowledged yet. */
  readonly commitTimeMs: number | undefined;
}

interface Transaction {
  /** Event copies not yet stored. */
  outstanding: number;
  /** Set when its commit was seen: what to acknowledge then. */
  lsn: bigint | undefined;
  commitTimeMs: number | undefined;
  /** When its first message came, milliseconds. */
  readonly since: number;
}

/**
 * Commit-order accounting: a commit's end LSN may be acknowledged when every event of its transaction and of all
 * before it is stored; an idle LSN likewise in its own place (rule 20). Pure. Holds at most one transaction per
 * unstored event: empty ones melt into their predecessor, which is acknowledged at the same moment.
 */
export class Acknowledgements {
  /** Transactions in commit order from number `#first`; the last may be open. */
  #transactions: Transaction[] = [];
  #first = 0;
  /** Transactions at the array's start that are done and not yet cut off. */
  #done = 0;
  #acknowledged: Acknowledged | undefined;

  /** Counts an event copy into the open transaction; gives its number for `settle`. */
  add(now: number): number {
    let open = this.#transactions.at(-1);
    if (open === undefined || open.lsn !== undefined) {
      open = { outstanding: 0, lsn: undefined, commitTimeMs: undefined, since: now };
      this.#transactions.push(open);
    }
    open.outstanding++;
    return this.#first + this.#transactions.length - 1;
  }

  /** The open transaction is whole; without one, a transaction of which nothing was published. */
  commit(lsn: bigint, commitTimeMs: number, now: number): void {
    this.#close(lsn, commitTimeMs, now);
  }

  /** Nothing happened up to here. Inside a transaction it says nothing: its commit will. */
  idle(lsn: bigint, now: number): void {
    const last = this.#transactions.at(-1);
    if (last === undefined || last.lsn !== undefined) this.#close(lsn, undefined, now);
  }

  /** Copies of events of a transaction were stored. */
  settle(transaction: number, copies: number): void {
    const settled = this.#transactions[transaction - this.#first] as Transaction;
    settled.outstanding -= copies;
    if (settled.outstanding < 0) throw new Error("more events stored than offered");
    this.#advance();
  }

  /** The furthest that may be acknowledged, or undefined before the first. Never goes backwards. */
  get acknowledged(): Acknowledged | undefined {
    return this.#acknowledged;
  }

  /** When the oldest message came that is not yet acknowledged, or undefined when all are. */
  get oldestSince(): number | undefined {
    return this.#transactions[this.#done]?.since;
  }

  #close(lsn: bigint, commitTimeMs: number | undefined, now: number): void {
    let last = this.#transactions.length > this.#done ? this.#transactions.at(-1) : undefined;
    if (last === undefined) {
      last = { outstanding: 0, lsn: undefined, commitTimeMs: undefined, since: now };
      this.#transactions.push(last);
    }
    last.lsn = lsn;
    last.commitTimeMs = commitTimeMs ?? last.commitTimeMs;
    this.#advance();
  }

  #advance(): void {
    for (;;) {
      const oldest = this.#transactions[this.#done];
      if (oldest === undefined || oldest.outstanding > 0 || oldest.lsn === undefined) break;
      const before = this.#acknowledged;
      this.#acknowledged = {
        lsn: before !== undefined && before.lsn > oldest.lsn ? before.lsn : oldest.lsn,
        commitTimeMs: oldest.commitTimeMs ?? before?.commitTimeMs,
      };
      this.#done++;
    }
    if (this.#done > 0 && this.#done * 2 >= this.#transactions.length) {
      this.#transactions = this.#transactions.slice(this.#done);
      this.#first += this.#done;
      this.#done = 0;
    }
  }
}
