import { type BackfillEnd, isControlEvent, readBackfillEnd } from "../../change/control-event.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import { type ClaimRecord, positionOf } from "../../change/record.ts";
import { Effects } from "../api/effects.ts";
import type { Registration } from "../api/registry.ts";
import { giveUpEvents } from "../dead-letter/dead-record.ts";
import { isStaleWriter } from "../fence/classify-event.ts";
import type { PartitionProgress } from "../fence/fence-item.ts";
import type { ReplayLease } from "../fence/replay-lease.ts";
import { waitsForSomebody } from "../hold/hold.ts";
import { lastPosition } from "../hold/hold-intake.ts";
import type { ChainPlace } from "../hold/parked-change.ts";
import type { BatchRecord, UnreadableEvents } from "./batch-record.ts";
import { readClaimed } from "./claimed-event.ts";
import { EventTurns } from "./event-turns.ts";
import type { PartitionLane } from "./ordered-batch.ts";
import {
  type Invocation,
  type Item,
  Partition,
  type PartitionStart,
  type Stop,
  stopAt,
} from "./partition.ts";
import { type DueEvent, Preparation, type Prepared } from "./preparation.ts";
import { isForAnother, removesBelow } from "./sweep.ts";
import { WaitingEvents } from "./waiting-events.ts";

/** The state of a partition after its run. */
export interface PartitionOutcome {
  readonly progress: PartitionProgress;
  /** The record that must come again, and why. */
  readonly stopped:
    | {
        readonly record: BatchRecord;
        readonly error: unknown;
        /** It waits for somebody, so the partition is to be held: see `waitsForSomebody`. */
        readonly held?: boolean;
      }
    | undefined;
  /** Chains of parked changes to remove once the progress is written: later changes took effect. */
  readonly superseded: readonly ChainPlace[];
  /** Backfills for this consumer whose end has passed. */
  readonly backfilled: readonly BackfillEnd[];
  /** Under which what the partition holds was replayed: to be given back once the progress is written. */
  readonly lease?: ReplayLease | undefined;
}

/** Why the partition goes no further, if so; a promise where that must be waited for. */
type Ended = Stop | undefined | Promise<Stop | undefined>;

/** Compressed events up to this size may wait in a partition for others, in bytes, and so many of them. */
const SMALL_BYTES = 128 * 1024;
const TOGETHER_BYTES = 512 * 1024;

/** Applies the events of one partition in order, until the end or the first that must come again. */
export class PartitionRun {
  readonly #partition: Partition;
  readonly #preparation: Preparation;
  readonly #effects: Effects;
  readonly #waiting: WaitingEvents;
  readonly #turns: EventTurns;
  /** Ends of backfills that were seen. */
  readonly #ends: { readonly position: PositionText; readonly end: BackfillEnd }[] = [];
  /** Of the small compressed records whose events may wait for a call. */
  #smallBytes = 0;

  constructor(lane: PartitionLane, start: PartitionStart, invocation: Invocation) {
    this.#partition = new Partition(lane, start, invocation);
    this.#preparation = new Preparation(this.#partition);
    this.#effects = new Effects(this.#partition);
    this.#waiting = new WaitingEvents(this.#partition, this.#effects);
    this.#turns = new EventTurns(this.#partition, this.#waiting);
  }

  /** Applies the events, and returns where the partition stands then. Never throws. */
  async run(): Promise<PartitionOutcome> {
    const stop = await this.#run();
    const partition = this.#partition;
    const progress = partition.progress(stop?.attempts);
    // The last call was noted when it began. Did its end reach the table with the close alone, a close that fails would make
    // a handler that came back look like one that died.
    await partition.start.note?.(progress).catch(() => false);
    return {
      progress,
      stopped: stop && {
        record: this.#firstOpen(stop.record),
        error: stop.error,
        held: stop.held || waitsForSomebody(stop.error),
      },
      superseded: partition.parking.superseded,
      backfilled: this.#ends
        .filter(({ position }) => position <= partition.checkpoint.position)
        .map(({ end }) => end),
    };
  }

  /**
   * The first record that holds something beyond the checkpoint, none behind the one that stopped: events in between that
   * were passed or parked while others waited for their call are not done before those are.
   */
  #firstOpen(stopped: BatchRecord): BatchRecord {
    const { checkpoint, lane } = this.#partition;
    const done = checkpoint.explained ?? checkpoint.position;
    const isOpen = (record: BatchRecord) =>
      lastPosition(record) > (record.unreadable ? done : checkpoint.position);
    return lane.records.find((record) => record === stopped || isOpen(record)) ?? stopped;
  }

  async #run(): Promise<Stop | undefined> {
    const stop = await this.#partition.stillRunning();
    if (stop) return stop;
    for (const record of this.#partition.lane.records) {
      if (record.barred) {
        this.#partition.invocation.counts.held++;
        return this.#waiting.flushBefore(stopAt(record, record.barred, undefined, true));
      }
      if (isStaleWriter(this.#waiting.seen, record.writer)) {
        this.#partition.invocation.counts.staleWriter++;
        continue;
      }
      const ended = this.#isPlainRecord(record)
        ? this.#events(record)
        : record.bytes === undefined
          ? this.#record(record)
          : this.#compressed(record);
      // Only what must wait: a promise for each of so many records would cost more than the records.
      const stop = ended instanceof Promise ? await ended : ended;
      if (stop) return stop;
    }
    return this.#waiting.flush();
  }

  /** Returns whether a record has all its events with it. */
  #isPlainRecord({ range, claimed, unreadable }: BatchRecord): boolean {
    return range === undefined && claimed === undefined && unreadable === undefined;
  }

  async #record(record: BatchRecord): Promise<Stop | undefined> {
    if (record.claimed) {
      const stop = await this.#oversized(record, record.claimed);
      if (stop) return stop;
    }
    // Known only once the events were asked for.
    const unreadable = record.events && record.unreadable;
    if (unreadable) {
      const stop = await this.#unreadable(record, unreadable);
      if (stop) return stop;
    }
    const ended = await this.#events(record);
    if (record.bytes === undefined) record.close?.();
    return ended;
  }

  /** Applies the events of a record until the first that must be waited for, and from there on. */
  #events(record: BatchRecord): Ended {
    const { deadline } = this.#partition.invocation;
    const { events } = record;
    for (let index = 0; index < events.length; index++) {
      const turn = deadline.turn();
      if (turn)
        return this.#eventsBehind(
          record,
          index,
          turn.then(() => undefined),
        );
      const ended = this.#event(record, index, events[index] as ChangeEventJson);
      if (ended instanceof Promise) return this.#eventsBehind(record, index + 1, ended);
      if (ended) return ended;
    }
    return undefined;
  }

  /** Applies the events of a record from one on, behind what must be waited for first. */
  async #eventsBehind(
    record: BatchRecord,
    from: number,
    first: Promise<Stop | undefined>,
  ): Promise<Stop | undefined> {
    const stop = await first;
    if (stop) return stop;
    const { deadline } = this.#partition.invocation;
    const { events } = record;
    for (let index = from; index < events.length; index++) {
      const turn = deadline.turn();
      if (turn) await turn;
      const ended = this.#event(record, index, events[index] as ChangeEventJson);
      // Only what must wait: a promise for each of so many events would cost more than the events.
      const stop = ended instanceof Promise ? await ended : ended;
      if (stop) return stop;
    }
    return undefined;
  }

  /**
   * Compressed events take memory while they are in use: a bounded number of bytes at a time over all partitions. Small
   * records may be in a call together.
   */
  async #compressed(record: BatchRecord): Promise<Stop | undefined> {
    const { oversize, deadline } = this.#partition.invocation;
    const { bytes = 0 } = record;
    const isSmall = bytes <= SMALL_BYTES;
    if (!isSmall || this.#smallBytes + bytes > TOGETHER_BYTES) {
      const stop = await this.#waiting.flush();
      if (stop) return stop;
      this.#smallBytes = 0;
    }
    try {
      if (isSmall) {
        this.#smallBytes += bytes;
        return await this.#record(record);
      }
      const whole = async () => (await this.#record(record)) ?? (await this.#waiting.flush());
      return await oversize.withBytes(bytes, deadline.work, whole);
    } catch (error) {
      return stopAt(record, error);
    } finally {
      record.close?.();
    }
  }

  #event(record: BatchRecord, index: number, wire: ChangeEventJson): Ended {
    const position = positionOf(wire);
    const turn = this.#turns.decide(record, position, wire.source.after);
    if (turn === "apply") return this.#apply(record, index, wire, position);
    if (!(turn instanceof Promise)) return undefined;
    return turn.then((ended) => (ended === "apply" ? this.#apply(record, index, wire, position) : ended));
  }

  /** An event that did not travel: read only when its turn has come, and then alone. */
  async #oversized(record: BatchRecord, claimed: ClaimRecord): Promise<Stop | undefined> {
    const turn = await this.#turns.decide(record, claimed.position, claimed.after);
    if (turn !== "apply") return turn;
    const before = await this.#waiting.flush();
    if (before) return before;
    const { oversize, deadline } = this.#partition.invocation;
    try {
      return await oversize.withRoom(claimed, deadline.work, async () => {
        const wire = await readClaimed(this.#partition, record, claimed);
        if (wire === "given up") {
          this.#waiting.pass(claimed.position, record.writer);
          return undefined;
        }
        if ("record" in wire) return wire;
        return (await this.#apply(record, 0, wire, claimed.position)) ?? (await this.#waiting.flush());
      });
    } catch (error) {
      return stopAt(record, error);
    }
  }

  /** Events that cannot be read: to the dead letters, in their turn, as far as they have not taken effect from elsewhere. */
  async #unreadable(record: BatchRecord, events: UnreadableEvents): Promise<Stop | undefined> {
    const { position: seen, writer, explained = seen } = this.#waiting.seen;
    const position = record.writer <= writer && events.last <= explained ? seen : events.last;
    const turn = await this.#turns.decide(record, position, events.after);
    if (turn !== "apply") return turn;
    const stop = (await this.#waiting.flush()) ?? (await giveUpEvents(this.#partition, record, events));
    if (stop) return stop;
    this.#waiting.seeExplained();
    return undefined;
  }

  #apply(record: BatchRecord, index: number, wire: ChangeEventJson, position: PositionText): Ended {
    const { consumer, counts, registry } = this.#partition.invocation;
    const passed = isForAnother(wire, consumer);
    let registration: Registration | undefined;
    try {
      if (!passed) {
        registration = registry.find(this.#partition.lane.topic, wire);
        const end = readBackfillEnd(wire);
        if (end) this.#ends.push({ position, end });
      }
    } catch (error) {
      counts.held++;
      return this.#waiting.flushBefore(stopAt(record, error, undefined, true));
    }
    if (!registration) {
      if (passed || isControlEvent(wire)) counts.passed++;
      else counts.unhandled++;
      this.#waiting.pass(position, record.writer);
      return undefined;
    }
    const given: DueEvent = { record, index, wire, position, event: undefined };
    // Nearly always: nothing parked, room in the call, and a row that is accepted at once.
    if (this.#isPlain(registration) && this.#waiting.joins(registration, position)) {
      const item = this.#preparation.prepare(registration, given);
      if (item instanceof Promise || "kind" in item) return this.#applyWaiting(registration, given, item);
      return this.#take(registration, item);
    }
    return this.#applyWaiting(registration, given);
  }

  /** Returns whether no event for it has anything to wait for but its schema and its handler. */
  #isPlain({ kind }: Registration): boolean {
    return kind !== "sweep" && this.#partition.parking.isEmpty;
  }

  async #applyWaiting(
    registration: Registration,
    given: DueEvent,
    prepared?: Prepared | Promise<Prepared>,
  ): Promise<Stop | undefined> {
    const { record, wire, position } = given;
    if (!this.#waiting.joins(registration, position)) {
      const stop = await this.#waiting.flush();
      if (stop) return stop;
    }
    // What a truncate or sweep supersedes goes off the list only when the checkpoint stands right before it.
    if (removesBelow(wire, position) !== undefined && !this.#partition.parking.isEmpty) {
      const stop = await this.#waiting.flush();
      if (stop) return stop;
    }
    const waits = await this.#partition.waits(given);
    if (typeof waits === "object") return (await this.#waiting.flush()) ?? waits;
    if (waits) {
      this.#waiting.pass(position, record.writer);
      return undefined;
    }
    const ready = await (prepared ?? this.#preparation.prepare(registration, given));
    if (!("kind" in ready)) return this.#take(registration, ready);
    const before = await this.#waiting.flush();
    // No time was left for a call of what waits before: what is to be remembered is the schema's.
    if (before) return { ...before, attempts: before.attempts ?? ready.attempts };
    if (ready.kind === "stopped") return stopAt(record, ready.error, ready.attempts);
    const stop = await this.#partition.poison(given, ready.error, ready.calls, ready.since);
    if (!stop) this.#waiting.pass(position, record.writer);
    return stop;
  }

  /** Gives an event to its handler, or to those that wait for the next call. */
  #take(registration: Registration, item: Item): Ended {
    if (registration.kind === "batch" && this.#partition.checkpoint.isDone(item.position)) {
      this.#partition.invocation.counts.duplicates++;
      this.#partition.parking.effect(item);
      this.#waiting.pass(item.position, item.record.writer);
      return undefined;
    }
    this.#waiting.see(item.position, item.record.writer);
    if (registration.kind !== "batch") return this.#effects.single(registration, item);
    this.#waiting.add(registration, item);
    return undefined;
  }
}
