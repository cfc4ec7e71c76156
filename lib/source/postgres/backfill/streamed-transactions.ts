import type { Snapshot } from "./snapshot.ts";

/**
 * The visibility race (rule 25): a commit stands in the log, and so in the stream, before other sessions see it. This
 * remembers which transactions were streamed, so that a chunk whose snapshot does not yet see one of them is known.
 * What a later snapshot sees is forgotten.
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

  /** How many came so far. */
  get count(): number {
    return this.#count;
  }

  /** How many are remembered. */
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
