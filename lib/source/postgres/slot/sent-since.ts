/** Two samples are at least this far apart, in milliseconds. */
const APART_MS = 250;
/** Above so many, because little is acknowledged, every second one goes. */
const SAMPLES = 1024;

/**
 * Since when what stands beyond a place of the log can be in the stream: whoever looks for it there begins to read at that time.
 * Kept by samples of how far was given and when, so that a change costs nothing.
 */
export class SentSince {
  readonly #apartMs: number;
  /** Everything that was given before `atMs` stands before `lsn`. Both grow. */
  #samples: { readonly lsn: bigint; readonly atMs: number }[] = [];
  #latest = Number.NEGATIVE_INFINITY;

  constructor(apartMs = APART_MS) {
    this.#apartMs = apartMs;
  }

  /** Everything that was given up to now stands before `lsn`. */
  note(lsn: bigint, now = performance.now(), atMs = Date.now()): void {
    if (now - this.#latest < this.#apartMs) return;
    this.#latest = now;
    this.#samples.push({ lsn, atMs });
    if (this.#samples.length > SAMPLES) this.#samples = this.#samples.filter((_, i) => i % 2 === 0);
  }

  /** Returns the earliest time at which what stands from `lsn` on was given, in milliseconds since 1970 UTC. Never asked of less again. */
  at(lsn: bigint): number | undefined {
    let last = -1;
    while ((this.#samples[last + 1]?.lsn ?? lsn + 1n) <= lsn) last++;
    if (last > 0) this.#samples.splice(0, last);
    return last < 0 ? undefined : this.#samples[0]?.atMs;
  }
}
