import type { PositionText } from "../../change/position.ts";
import { number, objectOf, optional, position, type Shape, text, wholeFrom } from "../../change/shape.ts";
import type { PartitionHold } from "../hold/hold-state.ts";
import { formatDone, parseDone } from "../run/done-ahead.ts";
import type { RunningCall } from "../run/running-calls.ts";

/** Handler calls whose changes are not done yet: what a later invocation must know about. */
export interface Attempts {
  /** First and last change of the call, and how many there were. */
  readonly from: PositionText;
  readonly to: PositionText;
  readonly count: number;
  /** Calls so far, one that is under way included. */
  readonly calls: number;
  /** Time at which the first of them failed or began, ISO 8601. */
  readonly since: string;
  /** Present where the last of them ran on when its invocation ended. */
  readonly running?: RunningCall;
  /** Changes behind the checkpoint that took effect already: see `formatDone`. */
  readonly done?: string;
}

/** Attempts as the fence holds them. What newer libraries write beside these stays there. */
export const storedAttempts: Shape<Attempts> = objectOf({
  ...{ from: position, to: position, count: wholeFrom(1), calls: wholeFrom(0), since: text },
  running: optional(objectOf({ process: text, until: number })),
}) as Shape<Attempts>;

/** The checkpoint of a partition, as the fence stores it. */
export interface CheckpointValue {
  /** Everything up to here took effect, was passed, or lies in the dead letters. */
  readonly position: PositionText;
  /** The newest writer among the records that brought it here. */
  readonly writer: number;
  /** Calls for changes behind the checkpoint, if any. */
  readonly attempts: Attempts | undefined;
  /**
   * Behind the checkpoint lies a record that could not be read and is a dead letter; its last event stands here. An event
   * that follows exactly that one follows no gap (rule 34). It is void once the checkpoint moves.
   */
  readonly explained?: PositionText | undefined;
  /** Until when records of the partition that arrived may have expired unread, and whether that was settled. As a value to be stored: left out, it stays as it is. */
  readonly lost?: LostRecords | undefined;
}

/** Records that may have expired before they were read (rule 35). */
export interface LostRecords {
  /** They arrived before this, in milliseconds since 1970 UTC. */
  readonly until: number;
  /** `open`: the partition stands before a change that may follow some. `settled`: none did, or it was accepted. */
  readonly state: "open" | "settled";
}

/**
 * The progress of a partition: position, writer generation and attempts are one value, which only moves forward, and
 * only here. What was merely seen does not count: were a newer writer's generation stored before its changes took
 * effect, the confirmed changes of an older writer that still wait before them would be dropped as stale (rule 33).
 */
export class Checkpoint {
  #position: PositionText;
  #writer: number;
  #attempts: Attempts | undefined;
  #explained: PositionText | undefined;
  #lost: LostRecords | undefined;
  #lostIsNew = false;
  readonly #done: Set<PositionText>;

  /** `stored`: where the fence has the partition; `startPosition`: where the consumer begins. */
  constructor(stored: Partial<CheckpointValue>, startPosition: PositionText) {
    const { position, writer = 0, attempts, explained, lost } = stored;
    this.#lost = lost;
    this.#position = position !== undefined && position > startPosition ? position : startPosition;
    this.#writer = writer;
    this.#attempts = attempts && attempts.to > this.#position ? attempts : undefined;
    this.#done = new Set(parseDone(this.#attempts?.done));
    this.#explained =
      position === this.#position && explained !== undefined && explained > position ? explained : undefined;
  }

  get position(): PositionText {
    return this.#position;
  }

  get writer(): number {
    return this.#writer;
  }

  /** Calls that are on record stay there until their changes are done. */
  get attempts(): Attempts | undefined {
    return this.#attempts;
  }

  /** See `CheckpointValue.explained`. */
  get explained(): PositionText | undefined {
    return this.#explained;
  }

  /** See `CheckpointValue.lost`. */
  get lost(): LostRecords | undefined {
    return this.#lost;
  }

  /** See `LostRecords`. What is settled is so for everything that arrived before. */
  noteLost(lost: LostRecords): void {
    const known = this.#lost;
    if (known?.state === "settled" && known.until >= lost.until) return;
    if (known?.state === lost.state && known.until === lost.until) return;
    this.#lost = lost;
    this.#lostIsNew = true;
  }

  /** These took effect although something before them did not: they are not to be called again when that comes again. */
  tookAhead(positions: readonly PositionText[]): void {
    for (const position of positions) this.#done.add(position);
  }

  /** Returns whether a change behind the checkpoint took effect already. */
  isDone(position: PositionText): boolean {
    return this.#done.size > 0 && this.#done.has(position);
  }

  /** Returns whether a change behind this position took effect already. */
  isAnyDoneBehind(position: PositionText): boolean {
    return [...this.#done].some((done) => done > position);
  }

  /** Everything up to `position` is done; the record that said so is of `writer`. */
  reach(position: PositionText, writer: number): void {
    if (position > this.#position) {
      this.#position = position;
      this.#explained = undefined;
    }
    if (writer > this.#writer) this.#writer = writer;
    if (this.#attempts && this.#attempts.to <= this.#position) this.#attempts = undefined;
  }

  /** A record of `writer` that follows the checkpoint could not be read, and is a dead letter; `last` is its last event. */
  explain(last: PositionText, writer: number): void {
    // A newer writer begins anew, maybe with a shorter record of the same changes: what follows, follows that one.
    if (writer <= this.#writer && last <= (this.#explained ?? "")) return;
    if (last > this.#position) this.#explained = last;
    if (writer > this.#writer) this.#writer = writer;
  }

  /** Returns the value to store; `attempts` are calls that were made since. */
  value(attempts: Attempts | undefined): CheckpointValue {
    const value = {
      position: this.#position,
      writer: this.#writer,
      attempts: this.#withDone(attempts ?? this.#attempts),
    };
    return {
      ...value,
      ...(this.#explained === undefined ? {} : { explained: this.#explained }),
      ...(this.#lostIsNew ? { lost: this.#lost } : {}),
    };
  }

  #withDone(attempts: Attempts | undefined): Attempts | undefined {
    if (this.#done.size === 0) return attempts;
    const ahead = [...this.#done].filter((position) => position > this.#position).sort();
    const done = formatDone(ahead);
    const [from, to] = [ahead[0], ahead.at(-1)];
    if (!done || !from || !to) return attempts && { ...attempts, done: undefined };
    const known = attempts ?? { from, to, count: ahead.length, calls: 0, since: new Date().toISOString() };
    return { ...known, to: known.to > to ? known.to : to, done };
  }
}

/** Returns whether what is stored has come as far as `value`, and has seen as new a writer. What is held of both counts as reached. */
export function hasReached(stored: Partial<Held>, value: Held): boolean {
  const { hold } = stored;
  // What was held of records without a position is told by their place in the stream only.
  if (value.hold && (hold?.last ?? "") < value.hold.last) return false;
  // A hold with a hole says nothing of what lies in it.
  const theirs = hold && hold.holes.length === 0 ? hold.intake : stored;
  return hasCome(theirs, { attempts: undefined, ...(value.hold?.intake ?? value) });
}

/** A checkpoint, and how far what lies behind it is held. */
type Held = CheckpointValue & {
  readonly hold?: Pick<PartitionHold, "intake" | "last" | "holes"> | null | undefined;
};

function hasCome(stored: Partial<CheckpointValue>, value: CheckpointValue): boolean {
  const { position, writer = 0, explained = "" } = stored;
  if (position === undefined || position < value.position || writer < value.writer) return false;
  return position > value.position || writer > value.writer || explained >= (value.explained ?? "");
}
