/**
 * Which transactions a statement sees, by `pg_current_snapshot()`. Ids are compared in 32 bits, as the log has them
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

  /** Whether a transaction (32 bits) had not ended: what it wrote is not seen. */
  hides(xid: number): boolean {
    return this.running.has(xid) || !precedes(xid, this.xmax);
  }
}

/** The low 32 bits of a transaction id's text. */
export function xid32(text: string): number {
  return Number(BigInt(text) & 0xffff_ffffn);
}

/** Whether `a` was given out before `b`: ids go round, and living ones are within 2^31 of each other. */
function precedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
