/**
 * The visibility race (rule 25): a commit stands in the log, and so in the stream, before other sessions see it. This
 * remembers which transactions were streamed, so that a chunk whose snapshot does not yet see one of them is known.
 * Transactions that a later snapshot sees are forgotten.
 */
export class StreamedTransactions {
  /** Transaction id to its number in the stream. */
  readonly #numbers = new Map<number, number>();
  #count = 0;
  #latest: Snapshot | undefined;

  /** A transaction came out of the slot. */
  streamed(xid: number): void {
    this.#numbers.set(xid, ++this.#count);
  }

  has(xid: number): boolean {
    return this.#numbers.has(xid);
  }

  /** Number of transactions that came so far. */
  get count(): number {
    return this.#count;
  }

  /** Number of transactions that are remembered. */
  get size(): number {
    return this.#numbers.size;
  }

  /** One of the first `count` transactions of the stream that the snapshot does not see, or undefined. */
  hiddenBy(snapshot: Snapshot, count: number): number | undefined {
    for (const [xid, number] of this.#numbers) {
      if (number <= count && snapshot.hides(xid)) return xid;
    }
    return undefined;
  }

  /** Forgets what this snapshot sees: every later one does. */
  forgetSeen(snapshot: Snapshot): void {
    for (const xid of this.#numbers.keys()) if (!snapshot.hides(xid)) this.#numbers.delete(xid);
  }

  /** A snapshot that a chunk was read with: those of chunks begun from now on are later ones. */
  saw(snapshot: Snapshot): void {
    this.#latest = snapshot;
  }

  get latest(): Snapshot | undefined {
    return this.#latest;
  }

  clear(): void {
    this.#numbers.clear();
    this.#latest = undefined;
  }
}

/**
 * The transactions that a statement sees, by `pg_current_snapshot()`. Ids are compared in 32 bits, as the log has them
 * (rule 25). https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
 */
export class Snapshot {
  /** All before it have ended. */
  readonly xmin: number;
  /** It and all after it had not ended. */
  readonly xmax: number;
  /** Those in between that had not ended. */
  readonly running: ReadonlySet<number>;

  private constructor(xmin: number, xmax: number, running: ReadonlySet<number>) {
    this.xmin = xmin;
    this.xmax = xmax;
    this.running = running;
  }

  /** Reads `xmin:xmax:xip,xip,…`. @throws RangeError when it is not of that form. */
  static parse(text: string): Snapshot {
    const match = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
    if (!match) throw new RangeError(`not a snapshot: "${text}"`);
    const list = match[3] as string;
    const running = new Set(list === "" ? [] : list.split(",").map(xid32));
    return new Snapshot(xid32(match[1] as string), xid32(match[2] as string), running);
  }

  /** Returns true if a transaction (32 bits) had not ended: its writes are not seen. */
  hides(xid: number): boolean {
    return this.running.has(xid) || !precedes(xid, this.xmax);
  }
}

/** The low 32 bits of a transaction id's text. */
export function xid32(text: string): number {
  return Number(BigInt(text) & 0xffff_ffffn);
}

/** Returns true if `a` was given out before `b`: ids go round, and living ones are within 2^31 of each other. */
function precedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
