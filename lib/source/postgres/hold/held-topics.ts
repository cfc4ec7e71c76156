import { setTimeout as sleep } from "node:timers/promises";
import type { SourceChange, SourceMessage } from "../../../change/change-stream.ts";
import type { ClaimStore } from "../../../change/claim-store.ts";
import { EncodedChange } from "../../../change/encoded-change.ts";
import { type PositionText, parsePosition } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import { firstPosition, type HeldChange, type HeldMessage } from "./held-change.ts";
import { HeldTopic } from "./held-topic.ts";
import { TopicHoldFullError } from "./hold-errors.ts";
import { type Hold, type HoldReason, type HoldRecord, reasonOf } from "./hold-record.ts";
import { HoldRelease, type HoldReleaseOptions } from "./hold-release.ts";
import { HoldSpill, type HoldSpillOptions } from "./hold-spill.ts";

/** Settings of held topics. */
export interface HoldSettings {
  readonly record: HoldRecord;
  readonly store: ClaimStore;
  /** The capture lease. */
  readonly generation: number;
  /** Most that may be stored of one topic, in bytes. Default 10 GiB. */
  readonly limitBytes?: number;
}

/** Dependencies of `HeldTopics`. */
export interface HeldTopicsOptions extends HoldSettings, HoldSpillOptions, HoldReleaseOptions {
  /** Of the history that is read. */
  readonly epoch: number;
  /** Makes the message that consumers of the topic must have passed before its release; undefined: none. */
  readonly barrier: (hold: Hold) => SourceMessage | undefined;
  /** There is something to release: reading must not wait for the server. */
  readonly onDue: () => void;
}

/** A held topic, as metrics tell it. */
export type HoldReport = Pick<Hold, "topic" | "since" | "changes" | "bytes">;

const LIMIT_BYTES = 10 * 1024 ** 3;
/** Interval at which the record is asked, while topics are held, for a release. */
const LOOK_MS = 2_000;
/** Changes that wait are stored within this time when the task ends. */
const CLOSE_MS = 5_000;
/** Beside the event's text. */
const OVERHEAD_BYTES = 200;

/**
 * The topics that are held (rule 32): their changes are stored in order instead of going into the stream, all other
 * topics go on, and the slot moves. A released topic's changes go into the stream in their order before newer ones of it.
 */
export class HeldTopics {
  readonly #options: HeldTopicsOptions;
  readonly #topics = new Map<string, HeldTopic>();
  /** Held changes of the batch that is being read, and the messages of the batch before each. */
  #aside: { readonly before: number; readonly change: HeldMessage; readonly error: TributaryError }[] = [];
  /** End of the last commit that was read. */
  #lastEnd: bigint;
  readonly #ending = new AbortController();
  readonly #spill: HoldSpill;
  readonly #release: HoldRelease;
  #looking: Promise<void> | undefined;

  private constructor(options: HeldTopicsOptions, confirmedLsn: bigint) {
    this.#options = options;
    this.#lastEnd = confirmedLsn;
    const { signal } = this.#ending;
    this.#spill = new HoldSpill(options, this.#topics, signal);
    this.#release = new HoldRelease(options, this.#topics, this.#spill, signal);
  }

  /** @throws what the record throws. */
  static async open(options: HeldTopicsOptions, confirmedLsn: bigint): Promise<HeldTopics> {
    const held = new HeldTopics(options, confirmedLsn);
    for (const { released, ...hold } of await options.record.list()) {
      held.#topics.set(hold.topic, new HeldTopic(hold, released));
    }
    held.#looking = held.#look();
    return held;
  }

  get reports(): readonly HoldReport[] {
    return [...this.#topics.values()].map(({ hold: { topic, since, changes, bytes } }) => ({
      ...{ topic, since, changes, bytes },
    }));
  }

  /** Holds a change, and what follows it in its topic; `before`: messages of the batch that stand before it. */
  put(change: HeldMessage, error: TributaryError, before: number): void {
    this.#aside.push({ before, change, error });
  }

  /** Holds a topic of which no change may be given from a position on, though none came yet. @throws what the record throws. */
  async hold(topic: string, reason: HoldReason, from: PositionText): Promise<void> {
    if (this.#topics.has(topic)) return;
    const held = HeldTopic.begin(topic, reason, from, Date.now());
    this.#topics.set(topic, held);
    this.#say(topic, reason);
    await this.#options.record.write(held.hold);
  }

  /** The holds, as the record has them. */
  get holds(): readonly Hold[] {
    return [...this.#topics.values()].map(({ hold }) => hold);
  }

  /** Releases a topic without being asked to. */
  releaseNow(topic: string): void {
    const held = this.#topics.get(topic);
    if (held) held.releasing = true;
    this.#options.onDue();
  }

  /** Takes the messages that consumers must have passed before topics can be released; `received`: end of what was read. */
  takeBarriers(received: bigint): SourceMessage[] {
    const barriers: SourceMessage[] = [];
    for (const topic of this.#topics.values()) {
      if (topic.barrier || !isBehind(topic.hold, received)) continue;
      topic.barrier = true;
      const barrier = this.#options.barrier(topic.hold);
      if (barrier) barriers.push(barrier);
    }
    return barriers;
  }

  /** Returns true if a topic is held and the change at this position may still come out of its hold. */
  isHeld(topic: string, position: PositionText): boolean {
    const drained = this.#topics.get(topic)?.hold.drained;
    return drained !== undefined && drained < position;
  }

  /** True if no batch needs sifting. */
  get isIdle(): boolean {
    return this.#topics.size === 0 && this.#aside.length === 0;
  }

  /** Takes the changes of held topics out of a batch. */
  sift(batch: readonly SourceMessage[]): SourceMessage[] {
    const left: SourceMessage[] = [];
    const aside = this.#aside;
    this.#aside = [];
    let next = 0;
    const holdUpTo = (place: number) => {
      for (let held = aside[next]; held && held.before <= place; held = aside[++next]) {
        const { change, error } = held;
        this.#begin(change, error);
        // Decoded when the hold began, and now it cannot be: it would have to go before the hold's changes.
        if (this.#topics.get(change.topic.name)?.place(firstPosition(change)) === "before") throw error;
        this.#hold(change, change.payload.length * 1.4);
      }
    };
    for (const [place, message] of batch.entries()) {
      holdUpTo(place);
      if (message.kind === "change") {
        if (this.#topics.has(message.topic.name) && this.#siftChange(message)) continue;
      } else if (message.kind === "commit") this.#lastEnd = later(this.#lastEnd, message.endPlace);
      else if (message.kind === "idle") this.#lastEnd = later(this.#lastEnd, message.place);
      left.push(message);
    }
    holdUpTo(batch.length);
    return left;
  }

  /** Up to where the server may be told that what the stream acknowledged up to `lsn` is durable. */
  durable(lsn: bigint): bigint {
    let least = lsn;
    for (const { durable } of this.#topics.values())
      if (durable !== undefined && durable < least) least = durable;
    return least;
  }

  /**
   * Returns true if a topic is to be released now. `received`: end of what was read, all of the topic that was read before the hold's
   * last change included: after a restart the server sends some of it again, and it goes first.
   */
  isDue(received: bigint): boolean {
    return this.#due(received) !== undefined;
  }

  /** Gives what a topic held that is due. Goes no further once `until` aborts. */
  async *release(received: bigint, until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    const topic = this.#due(received);
    if (topic) yield* this.#release.release(topic, until);
  }

  /** Waits while too much is to be stored, until `signal`. */
  async room(signal: AbortSignal): Promise<void> {
    await this.#spill.room(signal);
  }

  /** Stores what waits, in time or not at all: what is not stored is not confirmed and comes again. */
  async close(): Promise<void> {
    this.#spill.stop();
    const patience = setTimeout(() => this.#ending.abort(), CLOSE_MS);
    if (!this.#spill.failed) await this.#spill.all().catch(() => {});
    await this.#release.writeDrained().catch(() => {});
    clearTimeout(patience);
    this.#ending.abort();
    await this.#looking;
  }

  #due(received: bigint): HeldTopic | undefined {
    for (const topic of this.#topics.values()) {
      if (!topic.releasing) continue;
      const { epoch, commitLsn } = parsePosition(topic.hold.last);
      // Places of another history say nothing about this one, and nothing of that one comes again.
      if (epoch < this.#options.epoch || commitLsn < received) return topic;
    }
    return undefined;
  }

  #begin(change: HeldMessage, error: TributaryError): void {
    const topic = change.topic.name;
    if (this.#topics.has(topic)) return;
    const reason = reasonOf(error, change);
    this.#topics.set(topic, HeldTopic.begin(topic, reason, firstPosition(change), Date.now()));
    this.#say(topic, reason);
  }

  #say(topic: string, { code, message, remedy }: HoldReason): void {
    const release = `tributary capture release --topic ${shellWord(topic)}`;
    this.#options.log.error(`the topic ${topic} is held: ${message}`, {
      code,
      remedy: remedy.includes(release) ? remedy : `${remedy} Then: ${release}`,
    });
  }

  /** Returns whether the change is the hold's. */
  #siftChange(message: SourceChange): boolean {
    const { topic, partition, position, table } = message;
    const place = this.#topics.get(topic.name)?.place(position);
    if (place === "before") return false;
    if (place === "next") {
      const { json } = message;
      this.#hold({ kind: "event", topic, partition, position, table, json }, json.length);
    }
    if (message instanceof EncodedChange) message.release();
    return true;
  }

  #hold(change: HeldChange, bytes: number): void {
    const topic = this.#topics.get(change.topic.name) as HeldTopic;
    if (topic.place(firstPosition(change)) !== "next") return;
    const limit = this.#options.limitBytes ?? LIMIT_BYTES;
    const all = topic.hold.bytes + topic.pendingBytes + bytes;
    // While it is released, what is stored ends at the next commit: a full hold could never be released otherwise.
    if (all > limit && !topic.releasing) throw new TopicHoldFullError(change.topic.name, all, limit);
    topic.add(change, bytes + OVERHEAD_BYTES, this.#lastEnd);
    this.#spill.took(topic);
  }

  /** Asks the record, as long as something is held, whether it is to be released. */
  async #look(): Promise<void> {
    const { signal } = this.#ending;
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted || this.#spill.failed) return;
      if (this.#topics.size === 0) continue;
      try {
        for (const { topic, released } of await this.#options.record.list()) {
          const held = this.#topics.get(topic);
          if (held && released) held.releasing = true;
        }
      } catch (error) {
        this.#spill.fail(error);
      }
      if ([...this.#topics.values()].some(({ releasing }) => releasing)) this.#options.onDue();
    }
  }
}

/** Returns true if all that stands before a hold was read. */
function isBehind({ from }: Hold, received: bigint): boolean {
  const { commitLsn, ordinal } = parsePosition(from);
  return commitLsn < received || (commitLsn === received && ordinal <= 1);
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
