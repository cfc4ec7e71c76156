/** Sizes are powers of two from this one on. */
const SMALLEST = 512;

/**
 * Buffers that are used again: what comes and goes at hundreds of megabytes a second would keep the garbage collector
 * busy, for it looks at the whole heap each time that so much has gathered outside of it.
 */
export class BufferPool {
  readonly #free: Buffer[][] = [];
  readonly #maxBytes: number;
  #bytes = 0;

  /** `maxBytes`: what it keeps at most. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** A buffer of at least so many bytes, with anything in it. */
  take(bytes: number): Buffer {
    const power = powerOf(bytes);
    const free = this.#free[power]?.pop();
    if (free === undefined) return Buffer.allocUnsafeSlow(SMALLEST * 2 ** power);
    this.#bytes -= free.length;
    return free;
  }

  /** Gives a buffer back that nobody uses any more. */
  give(buffer: Buffer): void {
    if (this.#bytes + buffer.length > this.#maxBytes) return;
    this.#bytes += buffer.length;
    const power = powerOf(buffer.length);
    const free = this.#free[power];
    if (free) free.push(buffer);
    else this.#free[power] = [buffer];
  }
}

function powerOf(bytes: number): number {
  return bytes <= SMALLEST ? 0 : 32 - Math.clz32((bytes - 1) / SMALLEST);
}
