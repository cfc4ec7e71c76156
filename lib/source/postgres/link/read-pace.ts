/** Under load the socket is left alone for so long before it is read again. */
const GATHER_MS = 20;
/** Load is: so much in that time. */
const LOAD_BYTES = 32 * 1024;

/**
 * Decides when to read the socket. A walsender that finds its reader awake and waiting at each message does little else than
 * wake it; one whose messages gather may decode faster (docs/13-speed.md). So under load the socket is left alone
 * for a moment once it is empty. Under light load it is read at once: the rate decides, nobody has to choose.
 */
export class ReadPace {
  #bytes = 0;
  #since: number;

  /** Times are milliseconds of one clock. */
  constructor(now: number) {
    this.#since = now;
  }

  arrived(bytes: number): void {
    this.#bytes += bytes;
  }

  /** All that came is read: how many milliseconds to wait before the next look. */
  pauseMs(now: number): number {
    const elapsed = now - this.#since;
    const loaded = this.#bytes >= LOAD_BYTES * Math.max(1, elapsed / GATHER_MS);
    // A short time with little in it says nothing yet.
    if (loaded || elapsed >= GATHER_MS) {
      this.#bytes = 0;
      this.#since = now;
    }
    // What came while we were busy has gathered already.
    return loaded ? Math.max(0, GATHER_MS - elapsed) : 0;
  }
}
