import type { PositionText } from "../../change/position.ts";
import { ExpiredGapError, GapError } from "../consume-errors.ts";
import { classifyEvent } from "../fence/classify-event.ts";
import type { BatchRecord } from "./batch-record.ts";
import { lostTimes } from "./lost-times.ts";
import { type Partition, type Stop, stopAt } from "./partition.ts";
import type { WaitingEvents } from "./waiting-events.ts";

/** The outcome of an event's turn; undefined: it is a duplicate. */
export type Turn = "apply" | undefined;

/** Decides event by event whether it is the next one of its partition, and finds what is missing before it. */
export class EventTurns {
  readonly #partition: Partition;
  readonly #waiting: WaitingEvents;
  /** A shard of which nothing of this partition has expired unread. */
  #whole: string | undefined;

  constructor(partition: Partition, waiting: WaitingEvents) {
    this.#partition = partition;
    this.#waiting = waiting;
  }

  /** Returns whether it is an event's turn to take effect; if not, it is a duplicate, or the partition stops at a gap. */
  decide(
    record: BatchRecord,
    position: PositionText,
    after: PositionText | null,
  ): Turn | Promise<Turn | Stop> {
    const { counts } = this.#partition.invocation;
    const found = classifyEvent(this.#waiting.seen, position, after);
    if (found === "duplicate") {
      counts.duplicates++;
      // Its writer has begun at or before what is done: all that an older one has beyond it, comes again from this one.
      if (record.writer > this.#waiting.seen.writer)
        this.#waiting.pass(this.#waiting.seen.position, record.writer);
      return undefined;
    }
    if (found === "gap") return this.#gap(record, position, after as PositionText);
    if (record.shardId === this.#whole) return "apply";
    const times = lostTimes(this.#partition, record);
    if ("record" in times) return this.#waiting.flushBefore(times);
    if (times.length === 0) {
      this.#whole = record.shardId;
      return "apply";
    }
    const { start, invocation } = this.#partition;
    // Held before the shard was left unread: what is missing stands behind it.
    const before = times.filter((time) => !(start.hold && invocation.shards.isOlder(record, time)));
    if (before.length === 0) return "apply";
    const until = Math.max(...before);
    if (after === null) return this.#expired(record, position, until);
    // It follows what was seen before it: nothing of this partition has expired.
    this.#partition.checkpoint.noteLost({ until, state: "settled" });
    return "apply";
  }

  async #gap(record: BatchRecord, position: PositionText, after: PositionText): Promise<Turn | Stop> {
    const stop = await this.#waiting.flush();
    if (stop) return stop;
    try {
      // Only here: while nothing is missing, the consumer may never have been without the topic.
      const start = await this.#partition.start.startedAgain(after);
      if (start !== undefined) this.#waiting.pass(start, this.#waiting.seen.writer);
      if (classifyEvent(this.#waiting.seen, position, after) !== "gap")
        return this.decide(record, position, after);
    } catch (error) {
      return stopAt(record, error);
    }
    const { lane, invocation } = this.#partition;
    const { position: seen, explained = seen } = this.#waiting.seen;
    const unnoted = await this.#missing("gap", record, explained, after);
    return unnoted ?? stopAt(record, new GapError(invocation.consumer, lane, seen, position, after));
  }

  async #expired(record: BatchRecord, position: PositionText, until: number): Promise<Stop> {
    const stop = await this.#waiting.flush();
    if (stop) return stop;
    const { lane, invocation, checkpoint } = this.#partition;
    const { position: seen } = this.#waiting.seen;
    const unnoted = await this.#missing("expired", record, seen, position);
    if (unnoted) return unnoted;
    checkpoint.noteLost({ until, state: "open" });
    return stopAt(record, new ExpiredGapError(invocation.consumer, lane, seen, position, until));
  }

  /** Counts and notes what is missing before a record; gives why it could not be noted. */
  async #missing(
    cause: "gap" | "expired",
    record: BatchRecord,
    behind: PositionText,
    upTo: PositionText,
  ): Promise<Stop | undefined> {
    this.#partition.invocation.counts.gaps++;
    try {
      await this.#partition.noteMissing(cause, record, behind, upTo);
      return undefined;
    } catch (error) {
      return stopAt(record, error);
    }
  }
}
