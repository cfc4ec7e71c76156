/** What keeps memory here: it is asked to let go of it when all together have too much. */
export interface MemoryHolder {
  /** Lets go of all; what it knew is lost. */
  overflow(): void;
}

const MAX_BYTES = 64 * 1024 * 1024;

/**
 * The memory that the windows of all tables share: with more than the bound, the largest one lets go, so that a table that
 * changes much does not take the place of the others.
 */
export class WindowMemory {
  readonly #maxBytes: number;
  readonly #held = new Map<MemoryHolder, number>();
  #bytes = 0;

  /** `maxBytes`: of all together. */
  constructor(maxBytes = MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes that are held. */
  get bytes(): number {
    return this.#bytes;
  }

  grow(holder: MemoryHolder, bytes: number): void {
    this.#held.set(holder, (this.#held.get(holder) ?? 0) + bytes);
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes) {
      const [largest] = [...this.#held].reduce((most, one) => (one[1] > most[1] ? one : most));
      this.release(largest);
      largest.overflow();
    }
  }

  release(holder: MemoryHolder): void {
    this.#bytes -= this.#held.get(holder) ?? 0;
    this.#held.delete(holder);
  }
}
