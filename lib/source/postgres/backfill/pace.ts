import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../../../log.ts";
import type { SlotFacts } from "../slot/slot.ts";

/** Options of `Pace`. */
export interface PaceOptions {
  /** Rows in a second over all tables; undefined: no limit. */
  readonly rowsPerSecond: number | undefined;
  readonly log: Log;
}

/** Reading waits while the slot holds back more than this share of the WAL that the server allows it. */
const WAL_SHARE = 0.5;
const OVER_BUDGET = "the slot holds back more than half of the WAL that the server allows it";
const POLL_MS = 500;

/** When the next rows may be read: a rate limit, and a look at the WAL that the stream is behind with. */
export class Pace {
  readonly #options: PaceOptions;
  #allowedAt = 0;
  #walShare = 0;
  #told = false;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** A look at the slot. A slot without a bound (max_slot_wal_keep_size = -1) has no share. */
  slot({ restartLsn, safeWalSize }: Pick<SlotFacts, "restartLsn" | "safeWalSize">, serverLsn: bigint): void {
    const held = Number(serverLsn - restartLsn);
    this.#walShare = safeWalSize === undefined ? 0 : held / Math.max(1, held + safeWalSize);
  }

  /** How many of these rows to ask for at once: a second's worth at most. */
  rows(wanted: number): number {
    const { rowsPerSecond } = this.#options;
    return rowsPerSecond === undefined ? wanted : Math.max(1, Math.min(wanted, rowsPerSecond));
  }

  /** Waits until rows may be read, or the signal; `waits` is told for what. */
  async permit(signal: AbortSignal, waits: (reason: string | undefined) => void): Promise<void> {
    const { log } = this.#options;
    while (this.#walShare > WAL_SHARE && !signal.aborted) {
      waits(OVER_BUDGET);
      if (!this.#told) {
        this.#told = true;
        log.warn(`backfills wait: ${OVER_BUDGET}`, {
          remedy: "They go on by themselves when the stream has caught up.",
        });
      }
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
    if (this.#walShare <= WAL_SHARE) this.#told = false;
    const waitMs = this.#allowedAt - performance.now();
    if (waitMs > 0) await delay(waitMs, undefined, { signal }).catch(() => {});
  }

  /** Rows were read. */
  took(rows: number): void {
    const { rowsPerSecond } = this.#options;
    if (rowsPerSecond === undefined) return;
    this.#allowedAt = Math.max(this.#allowedAt, performance.now()) + (rows * 1000) / rowsPerSecond;
  }
}

/** The time and bytes that a chunk should take. */
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

/** A wait that is over with its time, the signal, or when something happens that it may have been for. One at a time. */
export class Nap {
  #wake: (() => void) | undefined;

  wake(): void {
    this.#wake?.();
  }

  async sleep(ms: number, until: AbortSignal): Promise<void> {
    if (until.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        until.removeEventListener("abort", wake);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(wake, ms);
      until.addEventListener("abort", wake, { once: true });
      this.#wake = wake;
    });
  }
}
