import type { PositionText } from "../change/position.ts";

/** Handler calls whose changes are not done yet: what a later invocation must know about. */
export interface Attempts {
  /** First and last change of the call, and how many there were. */
  readonly from: PositionText;
  readonly to: PositionText;
  readonly count: number;
  /** Calls so far, one that is under way included. */
  readonly calls: number;
  /** When the first of them failed or began, ISO 8601. */
  readonly since: string;
}

/** How far a partition has come, as the fence stores it. */
export interface CheckpointValue {
  /** Everything up to here took effect, was passed, or lies in the dead letters. */
  readonly mark: PositionText;
  /** The newest writer among the records that brought it here. */
  readonly writer: number;
  /** Calls for changes behind the mark, if any. */
  readonly attempts: Attempts | undefined;
}

/**
 * How far a partition has come: position, writer generation and attempts are one value, which only moves forward, and
 * only here. What was merely judged does not count: were a newer writer's generation stored before its changes took
 * effect, the confirmed changes of an older writer that still wait before them would be dropped as stale (rule 33).
 */
export class Checkpoint {
  #mark: PositionText;
  #writer: number;
  #attempts: Attempts | undefined;

  /** `stored`: where the fence has the partition; `floor`: where the consumer begins. */
  constructor(stored: Partial<CheckpointValue>, floor: PositionText) {
    const { mark, writer = 0, attempts } = stored;
    this.#mark = mark !== undefined && mark > floor ? mark : floor;
    this.#writer = writer;
    this.#attempts = attempts && attempts.to > this.#mark ? attempts : undefined;
  }

  get mark(): PositionText {
    return this.#mark;
  }

  get writer(): number {
    return this.#writer;
  }

  /** Calls that are on record stay there until their changes are done. */
  get attempts(): Attempts | undefined {
    return this.#attempts;
  }

  /** Everything up to `mark` is done; the record that said so is of `writer`. */
  reach(mark: PositionText, writer: number): void {
    if (mark > this.#mark) this.#mark = mark;
    if (writer > this.#writer) this.#writer = writer;
    if (this.#attempts && this.#attempts.to <= this.#mark) this.#attempts = undefined;
  }

  /** What is to be stored; `attempts` are calls that were made since. */
  value(attempts: Attempts | undefined): CheckpointValue {
    return { mark: this.#mark, writer: this.#writer, attempts: attempts ?? this.#attempts };
  }
}

/** Whether what is stored has come as far as `value`, and has seen as new a writer. */
export function hasReached(stored: Partial<CheckpointValue>, value: CheckpointValue): boolean {
  return stored.mark !== undefined && stored.mark >= value.mark && (stored.writer ?? 0) >= value.writer;
}
