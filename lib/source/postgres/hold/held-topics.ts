import { setTimeout as sleep } from "node:timers/promises";
import type { SourceChange, SourceMessage } from "../../../change/change-stream.ts";
import type { ClaimStore } from "../../../change/claim-store.ts";
import { EncodedChange } from "../../../change/encoded-change.ts";
import { type PositionText, parsePosition } from "../../../change/position.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import type { Log } from "../../../log.ts";
import { firstPosition, type HeldChange, type HeldMessage, parseSegment } from "./held-change.ts";
import { HeldTopic } from "./held-topic.ts";
import { HoldFullError, HoldSegmentError } from "./hold-errors.ts";
import type { Hold, HoldReason, HoldRecord } from "./hold-record.ts";
import { storeSegment } from "./hold-spill.ts";

/** What held topics stand on. */
export interface HoldSettings {
  readonly record: HoldRecord;
  readonly store: ClaimStore;
  /** The capture lease. */
  readonly generation: number;
  /** Most that may be stored of one topic, in bytes. Default 10 GiB. */
  readonly limitBytes?: number;
}

/** What `HeldTopics` is made of. */
export interface HeldTopicsOptions extends HoldSettings {
  readonly pipeline: string;
  /** Of the history that is read. */
  readonly epoch: number;
  readonly log: Log;
  /** Decodes a held message once more. @throws why it still cannot be. */
  readonly decode: (change: HeldMessage, out: SourceMessage[]) => Promise<void>;
  /** Puts a change aside that was before, or that `error` keeps from becoming an event; false: it is not to be. */
  readonly putAside?: (
    change: HeldMessage,
    error: Error | undefined,
    out: SourceMessage[],
  ) => Promise<boolean>;
  /** Resolves when rows are on record that decoding asked for again (rule 42). */
  readonly asked: () => Promise<void>;
  /** Goes on under what the hold is for, where that is an operator's to accept. @throws why it cannot be. */
  readonly accept: (hold: Hold) => Promise<void>;
  /** What consumers of the topic must have passed before its release; undefined: nothing. */
  readonly barrier: (hold: Hold) => SourceMessage | undefined;
  /** More is stored than before: what the stream acknowledged may be confirmed. */
  readonly onStored: () => void;
  /** There is something to release: reading must not wait for the server. */
  readonly onDue: () => void;
  readonly onFailure: (error: unknown) => void;
}

/** A held topic, as metrics tell it. */
export type HoldReport = Pick<Hold, "topic" | "since" | "changes" | "bytes">;

const LIMIT_BYTES = 10 * 1024 ** 3;
/** A segment is stored once it is as large, or after a moment. */
const SEGMENT_BYTES = 1024 * 1024;
const SEGMENT_MS = 500;
/** So much waits to be stored at most. */
const WAITING_BYTES = 8 * 1024 * 1024;
/** How often the record is asked, while topics are held, whether one is to be released. */
const LOOK_MS = 2_000;
/** What waits is stored within this time when the task ends. */
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
  #storing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #failed = false;

  private constructor(options: HeldTopicsOptions, confirmedLsn: bigint) {
    this.#options = options;
    this.#lastEnd = confirmedLsn;
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

  /** What consumers must have passed before topics can be released; `received`: end of what was read. */
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

  /** Whether a topic is held and the change at this position may still come out of its hold. */
  isHeld(topic: string, position: PositionText): boolean {
    const drained = this.#topics.get(topic)?.hold.drained;
    return drained !== undefined && drained < position;
  }

  /** Whether a batch must be sifted. */
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
      } else if (message.kind === "commit") this.#lastEnd = later(this.#lastEnd, message.endLsn);
      else if (message.kind === "idle") this.#lastEnd = later(this.#lastEnd, message.lsn);
      left.push(message);
    }
    holdUpTo(batch.length);
    return left;
  }

  /** Waits while too much is to be stored, until `signal`: a store that is down must not keep the task from ending. */
  async room(signal: AbortSignal): Promise<void> {
    while (!this.#failed && !signal.aborted && this.#waitingBytes() > WAITING_BYTES && this.#storing)
      await settledOrAborted(this.#storing, signal);
  }

  /** Up to where the server may be told that what the stream acknowledged up to `lsn` is durable. */
  durable(lsn: bigint): bigint {
    let least = lsn;
    for (const { durable } of this.#topics.values())
      if (durable !== undefined && durable < least) least = durable;
    return least;
  }

  /**
   * Whether a topic is to be released now. `received`: end of what was read, all of the topic that was read before the hold's
   * last change included: after a restart the server sends some of it again, and it goes first.
   */
  isDue(received: bigint): boolean {
    return this.#due(received) !== undefined;
  }

  /**
   * What a released topic held, in its order, segment by segment: each is in the stream before the next is read. Goes no
   * further once `until` aborts; the release then begins anew behind what is in the stream.
   */
  async *release(received: bigint, until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    const topic = this.#due(received);
    if (!topic) return;
    const { log, record } = this.#options;
    const signal = AbortSignal.any([until, this.#ending.signal]);
    log.info(`releasing the held topic ${topic.hold.topic}`, { changes: topic.hold.changes });
    try {
      await this.#options.accept(topic.hold);
    } catch (error) {
      if (error instanceof TributaryError && error.retry === "restart") throw error;
      await this.#refuse(topic, error);
      return;
    }
    while (!this.#failed && !signal.aborted) {
      await this.#storeAll();
      const { hold } = topic;
      if (hold.first >= hold.next) {
        await record.end(hold);
        this.#topics.delete(hold.topic);
        log.info(`released the held topic ${hold.topic}`);
        return;
      }
      const segment = await this.#segment(hold).catch((error) => this.#refuse(topic, error));
      if (!segment) return;
      const out: SourceMessage[] = [];
      const { given, refused } = await this.#decode(segment.held, out);
      const stored = Promise.withResolvers<void>();
      const passed = refused
        ? { drained: given ?? hold.drained }
        : {
            drained: segment.last,
            first: hold.first + 1,
            changes: hold.changes - segment.changes,
            bytes: hold.bytes - segment.bytes,
          };
      // Noted at once: the stream may store what it was given while the task ends, and `close` writes it then.
      const onStored = () => {
        topic.hold = { ...topic.hold, ...passed };
        topic.unwritten = true;
        stored.resolve();
      };
      yield [...out, { kind: "receipt", stored: onStored }];
      await Promise.race([stored.promise, aborted(signal)]);
      if (signal.aborted) return;
      if (refused) return await this.#stopRelease(topic, { ...topic.hold, reason: refused });
      await this.#writeDrained();
    }
  }

  /** Stores what waits, in time or not at all: what is not stored is not confirmed and comes again. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    const patience = setTimeout(() => this.#ending.abort(), CLOSE_MS);
    if (!this.#failed) await this.#storeAll().catch(() => {});
    await this.#writeDrained().catch(() => {});
    clearTimeout(patience);
    this.#ending.abort();
    await this.#looking;
  }

  /** What the stream has stored meanwhile is not given again after a restart. */
  async #writeDrained(): Promise<void> {
    for (const topic of this.#topics.values()) {
      if (!topic.unwritten) continue;
      await this.#options.asked();
      await this.#options.record.write(topic.hold);
      topic.unwritten = false;
    }
  }

  /** A segment that cannot be read stops its topic's release, not the stream. */
  async #refuse(topic: HeldTopic, error: unknown): Promise<undefined> {
    if (!(error instanceof TributaryError) || error.retry === "retry") throw error;
    const { code, message, remedy } = error;
    const { hold } = topic;
    const reason = { ...hold.reason, code, message, remedy };
    await this.#stopRelease(topic, { ...hold, reason });
  }

  async #stopRelease(topic: HeldTopic, hold: Hold): Promise<void> {
    await this.#options.asked();
    await this.#options.record.write(hold, true);
    topic.hold = hold;
    topic.unwritten = false;
    topic.releasing = false;
    topic.barrier = false;
    const { code, message, remedy } = hold.reason;
    this.#options.log.error(`the release of ${hold.topic} stopped: ${message}`, { code, remedy });
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
    const release = `tributary capture release --topic ${topic}`;
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
    if (all > limit && !topic.releasing) throw new HoldFullError(change.topic.name, all, limit);
    topic.add(change, bytes + OVERHEAD_BYTES, this.#lastEnd);
    if (topic.pendingBytes >= SEGMENT_BYTES) this.#storeSoon(0);
    else this.#storeSoon(SEGMENT_MS);
  }

  #waitingBytes(): number {
    let bytes = 0;
    for (const { pendingBytes } of this.#topics.values()) bytes += pendingBytes;
    return bytes;
  }

  #storeSoon(delayMs: number): void {
    if (this.#storing || this.#failed) return;
    if (delayMs > 0 && this.#timer) return;
    clearTimeout(this.#timer);
    if (delayMs > 0) this.#timer = setTimeout(() => this.#storeSoon(0), delayMs);
    else {
      this.#timer = undefined;
      this.#storeAll().catch((error) => this.#fail(error));
    }
  }

  /** One at a time. */
  async #storeAll(): Promise<void> {
    while (this.#storing) await this.#storing;
    this.#storing = (async () => {
      for (const topic of this.#topics.values()) await this.#store(topic);
    })().finally(() => {
      this.#storing = undefined;
    });
    await this.#storing;
    if (this.#waitingBytes() > 0) this.#storeSoon(SEGMENT_MS);
  }

  async #store(topic: HeldTopic): Promise<void> {
    const changes = topic.take();
    if (!changes) return;
    const { record, generation: by } = this.#options;
    const { hold } = topic;
    const segment = await storeSegment(this.#options, hold.topic, hold.next, changes, this.#ending.signal);
    await record.writeSegment(hold.topic, hold.next, segment);
    // What went into the stream meanwhile is told with it.
    if (topic.unwritten) await this.#options.asked();
    const next = { ...topic.with(segment), by };
    await record.write(next);
    topic.stored(next);
    this.#options.onStored();
  }

  /** The changes of the first segment that are not in the stream. */
  async #segment(hold: Hold) {
    const { record, store } = this.#options;
    const { claim, changes, last } = await record.readSegment(hold.topic, hold.first);
    const bytes = await store.get(claim, this.#ending.signal);
    try {
      const held = parseSegment(bytes).filter(({ position }) => position > hold.drained);
      return { held, changes, last, bytes: claim.bytes };
    } catch (error) {
      throw new HoldSegmentError(hold.topic, hold.first, hold.drained, error);
    }
  }

  /**
   * Tells why a change cannot be given, if one cannot: `out` has those before it, and `given` is the last one's own position
   * (an update that is one event has the first of its two).
   */
  async #decode(
    held: readonly HeldChange[],
    out: SourceMessage[],
  ): Promise<{ given?: PositionText; refused?: HoldReason }> {
    const { putAside, log } = this.#options;
    const dropped = new Map<string, number>();
    let given: { given?: PositionText } = {};
    for (const change of held) {
      const { length } = out;
      try {
        if (change.kind === "event") out.push({ ...change, kind: "change" });
        else if (!(await putAside?.(change, undefined, out))) await this.#options.decode(change, out);
      } catch (error) {
        if (!(error instanceof TributaryError) || error.retry === "retry" || change.kind === "event")
          throw error;
        out.length = length;
        if (!(await putAside?.(change, error, out))) return { ...given, refused: reasonOf(error, change) };
      }
      if (out.length === length && change.kind === "message")
        dropped.set(change.table, (dropped.get(change.table) ?? 0) + 1);
      given = { given: change.position };
    }
    for (const [table, count] of dropped) {
      log.warn(`${count} held changes of ${table} are not given: the table is not captured any more`, {
        remedy: `To have it in the stream again, name it in source.tables, then: tributary backfill start --table ${table}`,
      });
    }
    return given;
  }

  /** Asks the record, as long as something is held, whether it is to be released. */
  async #look(): Promise<void> {
    const { signal } = this.#ending;
    for (;;) {
      await sleep(LOOK_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted || this.#failed) return;
      if (this.#topics.size === 0) continue;
      try {
        for (const { topic, released } of await this.#options.record.list()) {
          const held = this.#topics.get(topic);
          if (held && released) held.releasing = true;
        }
      } catch (error) {
        this.#fail(error);
      }
      if ([...this.#topics.values()].some(({ releasing }) => releasing)) this.#options.onDue();
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.onFailure(error);
  }
}

function reasonOf({ code, message, remedy }: TributaryError, { table, position }: HeldMessage): HoldReason {
  return { code, message, remedy, table, position };
}

/** Whether all that stands before a hold was read. */
function isBehind({ from }: Hold, received: bigint): boolean {
  const { commitLsn, ordinal } = parsePosition(from);
  return commitLsn < received || (commitLsn === received && ordinal <= 1);
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

async function settledOrAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = () => resolve();
  signal.addEventListener("abort", stop, { once: true });
  try {
    await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  else signal.addEventListener("abort", () => resolve(), { once: true });
  return promise;
}
