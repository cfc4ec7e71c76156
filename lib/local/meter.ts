/** Makes rates of counts that only grow: one sample a second, the latest ones kept for a sparkline. */
export class Meter {
  readonly #kept: number;
  readonly #rates: number[] = [];
  #last: { count: number; atMs: number } | undefined;

  /** @param kept how many rates are kept. */
  constructor(kept = 32) {
    this.#kept = kept;
  }

  /** Takes a sample: the count so far, and the time in milliseconds of any one clock. */
  sample(count: number, atMs: number): void {
    const last = this.#last;
    this.#last = { count, atMs };
    if (last === undefined || atMs <= last.atMs) return;
    // A count that went back belongs to a process that was started anew.
    this.#rates.push((Math.max(0, count - last.count) * 1000) / (atMs - last.atMs));
    if (this.#rates.length > this.#kept) this.#rates.shift();
  }

  /** Oldest first, in units a second. */
  get rates(): readonly number[] {
    return this.#rates;
  }

  /** The mean of the last three samples: calm enough to be read. */
  get rate(): number {
    const recent = this.#rates.slice(-3);
    return recent.length === 0 ? 0 : recent.reduce((sum, rate) => sum + rate, 0) / recent.length;
  }
}
