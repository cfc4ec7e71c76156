import { type PositionText, START_OF_HISTORY } from "../../../change/position.ts";
import type { HeldChange } from "./held-change.ts";
import type { Hold, HoldReason, HoldSegment } from "./hold-record.ts";

/** One held topic while the capture task runs: its hold, and what of it is not stored yet. */
export class HeldTopic {
  /** As it stands in the record. */
  hold: Hold;
  /** Somebody wants its changes in the stream. */
  releasing: boolean;
  /** True if consumers can tell that they have passed all that stands before it. */
  barrier = false;
  /** The stream has stored more of its changes than the record tells. */
  unwritten = false;
  /** Changes that are in no segment yet, and how large they are, about. */
  #pending: HeldChange[] = [];
  #pendingBytes = 0;
  /** End of the last commit before the first of them. */
  #pendingBehind: bigint | undefined;
  /** End of the last commit before the first change of the segment that is being stored. */
  #storingBehind: bigint | undefined;
  /** Last change that was taken. */
  #last: PositionText;

  constructor(hold: Hold, releasing: boolean) {
    this.hold = hold;
    this.releasing = releasing;
    this.#last = hold.last;
  }

  /** A topic that is held from the position `from` on: nothing of it is stored. `since`: milliseconds. */
  static begin(topic: string, reason: HoldReason, from: PositionText, since: number): HeldTopic {
    const empty = {
      last: START_OF_HISTORY,
      drained: START_OF_HISTORY,
      first: 0,
      next: 0,
      changes: 0,
      bytes: 0,
    };
    return new HeldTopic({ topic, reason, since, from, ...empty }, false);
  }

  /**
   * Tells whose turn a change is: `before` the hold (the server sends what was not confirmed again), `stored` already, or
   * `next` to be held.
   */
  place(position: PositionText): "before" | "stored" | "next" {
    if (position < this.hold.from) return "before";
    return position <= this.#last ? "stored" : "next";
  }

  /** Takes a change in; `behind`: the end of the last commit before it. */
  add(change: HeldChange, bytes: number, behind: bigint): void {
    this.#pending.push(change);
    this.#pendingBytes += bytes;
    this.#pendingBehind ??= behind;
    this.#last = change.position;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** The changes of the next segment; `stored` or `notStored` must follow. */
  take(): readonly [HeldChange, ...HeldChange[]] | undefined {
    const [first, ...rest] = this.#pending;
    if (!first) return undefined;
    this.#storingBehind = this.#pendingBehind;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#pendingBehind = undefined;
    return [first, ...rest];
  }

  /** The hold as it is once this segment counts. */
  with({ changes, last, claim }: HoldSegment): Hold {
    const { hold } = this;
    return {
      ...hold,
      last,
      next: hold.next + 1,
      changes: hold.changes + changes,
      bytes: hold.bytes + claim.bytes,
    };
  }

  /** The segment counts. */
  stored(hold: Hold): void {
    this.hold = hold;
    this.#storingBehind = undefined;
  }

  /** The server may be told that everything up to here is durable; undefined: whatever the stream has acknowledged. */
  get durable(): bigint | undefined {
    return this.#storingBehind ?? this.#pendingBehind;
  }
}
