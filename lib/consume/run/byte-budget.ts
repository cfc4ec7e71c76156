/** Lets so many bytes be in use at once; one that is larger than all of it, alone. Who waited longest is next. */
export class ByteBudget {
  readonly #limit: number;
  readonly #waiting = new Set<{ readonly bytes: number; readonly grant: () => void }>();
  #used = 0;
  #users = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Runs `work` once there is room for its bytes. Rejects with the signal's reason when it aborts before. */
  async use<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#room(bytes, signal);
    try {
      return await work();
    } finally {
      this.#used -= bytes;
      this.#users--;
      this.#grant();
    }
  }

  async #room(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting = { bytes, grant: resolve };
    const giveUp = () => {
      this.#waiting.delete(waiting);
      reject(signal.reason);
      this.#grant();
    };
    signal.addEventListener("abort", giveUp, { once: true });
    this.#waiting.add(waiting);
    this.#grant();
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  #grant(): void {
    for (const waiting of this.#waiting) {
      if (this.#users > 0 && this.#used + waiting.bytes > this.#limit) return;
      this.#waiting.delete(waiting);
      this.#used += waiting.bytes;
      this.#users++;
      waiting.grant();
    }
  }
}
