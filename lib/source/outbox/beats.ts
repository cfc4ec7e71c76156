/**
 * The beats of relays, as one of them sees them. No clocks are compared, nor is the server's trusted not to be set: alive is
 * whose beat has moved within a lease of our own time.
 */
export class Beats {
  readonly #now: () => number;
  #seen: ReadonlyMap<string, { readonly beat: string; readonly since: number }> = new Map();

  /** @param now Milliseconds of a clock that nobody sets. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Takes note of the beats that stand in the database now, by relay. */
  see(beats: ReadonlyMap<string, string>): void {
    const now = this.#now();
    this.#seen = new Map(
      [...beats].map(([id, beat]) => {
        const before = this.#seen.get(id);
        return [id, before?.beat === beat ? before : { beat, since: now }];
      }),
    );
  }

  /** Those whose beat has moved within the last `leaseMs`. */
  living(leaseMs: number): ReadonlySet<string> {
    const after = this.#now() - leaseMs;
    return new Set([...this.#seen].filter(([, { since }]) => since > after).map(([id]) => id));
  }

  /** Those whose beat has stood still for `ms`, with that beat. */
  silent(ms: number): readonly { readonly id: string; readonly beat: string }[] {
    const before = this.#now() - ms;
    return [...this.#seen].flatMap(([id, { beat, since }]) => (since <= before ? [{ id, beat }] : []));
  }
}
