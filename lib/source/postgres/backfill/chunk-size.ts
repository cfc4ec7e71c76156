/** What a chunk should take, and may hold at most. */
export interface ChunkGoal {
  /** Time to read one, milliseconds. */
  readonly ms: number;
  /** Bytes of its rows; the stream stands still while they are given. */
  readonly bytes: number;
  /** Rows of the first chunk, before its time and bytes are known; no time is so long that a chunk has fewer. */
  readonly firstRows: number;
}

const MAX_ROWS = 1_000_000;
const GROWTH = 4;

/** How many rows the next chunk of a table asks for: as many as took the goal's time and bytes before. */
export class ChunkSize {
  readonly #goal: ChunkGoal;
  #rows: number;

  constructor(goal: ChunkGoal) {
    this.#goal = goal;
    this.#rows = goal.firstRows;
  }

  get rows(): number {
    return this.#rows;
  }

  /** A chunk was read: so many rows and bytes in so long. */
  took(rows: number, bytes: number, ms: number): void {
    if (rows === 0) return;
    // Below some rows a chunk's time is its round trips': fewer rows would only be slower.
    const byTime = Math.max(this.#goal.firstRows, (rows * this.#goal.ms) / Math.max(ms, 1));
    const byBytes = (rows * this.#goal.bytes) / Math.max(bytes, 1);
    this.#set(Math.min(byTime, byBytes, this.#rows * GROWTH));
  }

  /** Too much happened meanwhile: a shorter window. */
  halve(): void {
    this.#set(this.#rows / 2);
  }

  #set(rows: number): void {
    this.#rows = Math.min(MAX_ROWS, Math.max(1, Math.round(rows)));
  }
}
