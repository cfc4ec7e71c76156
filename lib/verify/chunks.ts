import { murmur3 } from "../change/topic.ts";
import type { Digest } from "./comparable.ts";

/** Chunks of a comparison: each about a thousandth part of the rows, by a hash of their keys. */
export const CHUNKS = 4096;

/** The chunk of a key. Order plays no part, so that any sink can be compared, in whatever order it gives its rows. */
export function chunkOf(keyText: string): number {
  return murmur3(keyText) % CHUNKS;
}

/** Counts and hashes of one side, by chunk: a bounded summary of any number of rows. */
export class ChunkSums {
  rows = 0;
  readonly #counts = new Float64Array(CHUNKS);
  readonly #high = new Uint32Array(CHUNKS);
  readonly #low = new Uint32Array(CHUNKS);

  /** Takes in a row; in any order, since sums are kept. */
  add(keyText: string, { high, low }: Digest): void {
    const chunk = chunkOf(keyText);
    this.rows++;
    this.#counts[chunk] = (this.#counts[chunk] as number) + 1;
    this.#high[chunk] = (this.#high[chunk] as number) + high;
    this.#low[chunk] = (this.#low[chunk] as number) + low;
  }

  count(chunk: number): number {
    return this.#counts[chunk] as number;
  }

  /** Chunks whose count or hash is another. */
  differing(other: ChunkSums): number[] {
    const chunks: number[] = [];
    for (let i = 0; i < CHUNKS; i++) {
      const same =
        this.#counts[i] === other.#counts[i] &&
        this.#high[i] === other.#high[i] &&
        this.#low[i] === other.#low[i];
      if (!same) chunks.push(i);
    }
    return chunks;
  }
}
