import { setTimeout as sleep } from "node:timers/promises";
import type { ChangeEventJson } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import { positionOf } from "../../change/record.ts";
import { formatTable } from "../../change/table-pattern.ts";
import type { ConsumerConfiguration } from "../api/configuration.ts";
import { type WriteLine, warnOf } from "../api/context.ts";
import { HandlerStillRunningError } from "../api/handler-errors.ts";
import type { Claims } from "../api/once.ts";
import type { Registry } from "../api/registry.ts";
import { retryDelay } from "../api/retries.ts";
import { OwnershipLostError } from "../consume-errors.ts";
import type { DeadLetterQueue } from "../dead-letter/dead-letter.ts";
import type { Attempts, Checkpoint } from "../fence/checkpoint.ts";
import type { PartitionProgress } from "../fence/fence-item.ts";
import { PoisonWithoutKeyError } from "../hold/hold-errors.ts";
import type { PartitionHold } from "../hold/hold-state.ts";
import { parkingKey } from "../hold/parked-keys.ts";
import type { ParkedPayloads } from "../hold/parked-payload.ts";
import { type Overtake, type ParkableChange, Parking } from "../hold/parking.ts";
import type { ParkingTable } from "../hold/parking-table.ts";
import type { BatchRecord } from "./batch-record.ts";
import type { ClaimReader } from "./claim-reader.ts";
import type { Deadline } from "./deadline.ts";
import type { ChangeEvent, HandledEvent } from "./event.ts";
import type { MissingCause, MissingTable } from "./missing-changes.ts";
import type { InvocationCounts } from "./observer.ts";
import type { PartitionLane } from "./ordered-batch.ts";
import type { RunningCall, RunningCalls } from "./running-calls.ts";
import type { Shards } from "./shards.ts";
import { removesBelow, type Sweep } from "./sweep.ts";

/** The parts that all partition runs of an invocation share. */
export interface Invocation {
  readonly consumer: string;
  readonly registry: Registry;
  readonly configuration: ConsumerConfiguration;
  readonly deadline: Deadline;
  readonly counts: InvocationCounts;
  readonly deadLetters: DeadLetterQueue | undefined;
  readonly claims: Claims;
  readonly missing: MissingTable;
  readonly shards: Shards;
  readonly oversize: ClaimReader;
  readonly parking: ParkingTable;
  readonly payloads: ParkedPayloads;
  /** Names the invocation, in the fence's tokens and as the owner of claims. */
  readonly token: string;
  readonly running: RunningCalls;
  readonly write: WriteLine;
  /** Called for what takes effect: see `ConsumerParts`. */
  readonly onEffect?: ((effect: ChangeEvent | Sweep) => void) | undefined;
}

/** The right to call handlers where others may have it too: see `ReplayLease`. */
export interface CallRight {
  /** Returns whether it was confirmed a moment ago. */
  isFresh(): boolean;
  /** Asked before a call where it was not. */
  confirm(): Promise<boolean>;
}

/** The state of a partition when it was taken. */
export interface PartitionStart {
  readonly checkpoint: Checkpoint;
  /** Present where the predecessor died (rule 11): called before each handler call; false when no longer ours. */
  readonly note: ((progress: PartitionProgress) => Promise<boolean>) | undefined;
  /** While the partition is held; what runs are records that it holds. */
  readonly hold?: PartitionHold | undefined;
  /** Present with it. */
  readonly right?: CallRight | undefined;
  /** The keys with open dead letters: see `ParkedKeys`. */
  readonly parked: string | undefined;
  /** Called before such keys are overtaken: see `Fence.overtake`. */
  readonly overtake: (progress: PartitionProgress) => ReturnType<Overtake>;
  /** Called where changes are missing up to a position: see `StartPositions.startedAgain`. */
  readonly startedAgain: (missing: PositionText) => Promise<PositionText | undefined>;
}

/** An event on its way to a handler. */
export interface Item {
  readonly record: BatchRecord;
  readonly index: number;
  readonly wire: ChangeEventJson;
  readonly position: PositionText;
  readonly event: HandledEvent;
}

/** The facts that a log line has of a change. */
interface LoggedChange {
  readonly position: PositionText;
  /** Undefined where the change cannot be read. */
  readonly wire?: ChangeEventJson | undefined;
}

/** Why the partition goes no further in this invocation; `attempts` are remembered. */
export interface Stop {
  readonly record: BatchRecord;
  readonly error: unknown;
  readonly attempts: Attempts | undefined;
  /** Not before somebody acts: see `waitsForSomebody`. */
  readonly held?: boolean | undefined;
}

/** Returns why the partition stops at a record. */
export function stopAt(record: BatchRecord, error: unknown, attempts?: Attempts, held?: boolean): Stop {
  return { record, error, attempts, held };
}

/** The parts that the steps of a partition's run share: where it stands, what is on record, and the way to the dead letters. */
export class Partition {
  readonly lane: PartitionLane;
  readonly start: PartitionStart;
  readonly invocation: Invocation;
  readonly parking: Parking;
  /** Moves when changes took effect, were passed, or lie in the dead letters: never before. */
  readonly checkpoint: Checkpoint;

  constructor(lane: PartitionLane, start: PartitionStart, invocation: Invocation) {
    this.lane = lane;
    this.start = start;
    this.invocation = invocation;
    this.checkpoint = start.checkpoint;
    const { consumer, configuration, parking, payloads, deadLetters, counts, deadline } = invocation;
    this.parking = new Parking(
      lane,
      start.parked,
      { consumer, configuration, table: parking, payloads, deadLetters, counts, signal: deadline.end },
      () => start.overtake(this.progress()),
    );
  }

  /** Returns where the partition stands now; `attempts` are calls that were made since. */
  progress(attempts?: Attempts): PartitionProgress {
    const value = this.checkpoint.value(attempts);
    const { hold } = this.start;
    const progress = {
      partition: this.lane.partition,
      ...value,
      parked: this.parking.format(value.position),
    };
    return hold ? { ...progress, hold } : progress;
  }

  /** This event is done, and everything before it. */
  passed({ position, record }: Pick<Item, "position" | "record">): void {
    this.checkpoint.reach(position, record.writer);
  }

  /** This event took effect, and everything before it. */
  took(item: Item): void {
    this.invocation.counts.effect(item.wire.source.ts_ms);
    this.invocation.onEffect?.(item.event.sweep ?? (item.event as ChangeEvent));
    this.parking.effect(item);
    this.passed(item);
  }

  /**
   * Returns whether a change must wait behind a parked one of its key, or why the partition stops there. What the change
   * supersedes is out of redrive's reach when this is answered.
   */
  async waits(item: Pick<Item, "record" | "index" | "wire" | "position">): Promise<boolean | Stop> {
    try {
      const bound = removesBelow(item.wire, item.position);
      if (bound !== undefined) await this.parking.supersedeBelow(bound, item.wire, item.position);
      return await this.parking.waits(item);
    } catch (error) {
      return stopAt(item.record, error);
    }
  }

  /** Notes that changes are missing behind a position and up to another, as a record shows. */
  noteMissing(
    cause: MissingCause,
    { writer }: BatchRecord,
    behind: PositionText,
    upTo: PositionText,
  ): Promise<void> {
    const { missing, deadline } = this.invocation;
    return missing.found({ ...this.lane, cause, behind, upTo, writer }, deadline.end);
  }

  /** Waits before a retry; returns false, at once, where the invocation's time would be over. */
  async wait(calls: number): Promise<boolean> {
    const delay = retryDelay(calls);
    if (delay >= this.invocation.deadline.remainingMs()) return false;
    await sleep(delay);
    return true;
  }

  /** Calls for a change that earlier invocations have on record. */
  callsBefore(position: PositionText): { calls: number; since: string | undefined } {
    const earlier = this.checkpoint.attempts;
    const known = earlier?.count === 1 && earlier.from === position ? earlier : undefined;
    return { calls: known?.calls ?? 0, since: known?.since };
  }

  /** Returns whether so many calls never came back that the change is given up. */
  diedOften(calls: number): boolean {
    const { attempts, poison } = this.invocation.configuration;
    return this.start.note !== undefined && calls >= attempts && poison !== "stop";
  }

  /**
   * Returns whether so many calls were cut short that the change is given up, the last of which ran on then: it was not given up
   * at once, now it has ended (see `stillRunning`).
   */
  ranOnOften(position: PositionText, calls: number): boolean {
    const { attempts, poison } = this.invocation.configuration;
    const earlier = this.checkpoint.attempts;
    const ranOn = earlier?.running !== undefined && earlier.from === position;
    return ranOn && calls >= attempts && poison !== "stop";
  }

  /** Why nothing may happen here yet: a call that an earlier invocation made still runs. Waits for it. */
  async stillRunning(): Promise<Stop | undefined> {
    const { running, deadline } = this.invocation;
    const known = this.checkpoint.attempts?.running;
    const [record] = this.lane.records;
    if (!record || !(known || running.has(this.lane))) return undefined;
    const ended = await running.haveEnded(this.lane, known, deadline.work);
    // In what is left after a long wait the next call would be cut short again, and count for nothing: never a way on.
    if (ended && deadline.isFair()) return undefined;
    return stopAt(record, new HandlerStillRunningError(this.lane));
  }

  /** Calls for changes, as they are to be remembered where the partition stops. */
  attemptsOf(items: readonly Pick<Item, "position">[], calls: number, since: string): Attempts | undefined {
    const { running, deadline } = this.invocation;
    return attemptsOf(items, calls, since, running.describe(this.lane, deadline.untilEndMs()));
  }

  /** Writes down that a call begins, where the predecessor died, or others may call too. Gives why it must not begin. */
  async noteCall(
    items: readonly Pick<Item, "record" | "position">[],
    calls: number,
    since: string,
  ): Promise<Stop | undefined> {
    const { note, right } = this.start;
    if (!note && (right?.isFresh() ?? true)) return undefined;
    const { record } = items[0] as Pick<Item, "record">;
    try {
      const may = async () => right === undefined || right.isFresh() || (await right.confirm());
      const noted = async () => (await note?.(this.progress(attemptsOf(items, calls, since)))) ?? true;
      // Asked again at the end: noting it may have taken long.
      const ours = (await may()) && (await noted()) && (await may());
      return ours ? undefined : stopAt(record, new OwnershipLostError(this.lane));
    } catch (error) {
      return stopAt(record, error, attemptsOf(items, calls - 1, since));
    }
  }

  /**
   * A change that failed for good: into the dead letters and on, or no further, as the policy says. `overtaken` where
   * a later change of its key took effect before.
   */
  async poison(
    item: ParkableChange,
    error: unknown,
    calls: number,
    since: string,
    overtaken = false,
  ): Promise<Stop | undefined> {
    const { configuration, counts, deadLetters } = this.invocation;
    const { record, position, wire } = item;
    const stop = (reason: unknown, held = false): Stop =>
      stopAt(record, reason, attemptsOf([item], calls, since), held);
    if (configuration.poison === "stop" || !deadLetters) {
      counts.held++;
      return stop(error, true);
    }
    // What cannot be read at all is passed under `skip`: nobody would ever know its key.
    const passed = wire === undefined && configuration.poison === "skip";
    if (!passed && (wire === undefined || parkingKey(wire) === undefined)) {
      counts.held++;
      return stop(new PoisonWithoutKeyError(this.lane, position, error));
    }
    try {
      const closed = overtaken || this.#isOvertaken(item);
      await this.parking.poison(item, { error, attempts: calls, firstFailedAt: since }, closed);
    } catch (refusal) {
      return stop(refusal);
    }
    this.log("a change went to the dead letters", item, calls, error);
    this.passed(item);
    return undefined;
  }

  /** Returns whether a later change of its key took effect in an earlier invocation (`tookAhead`): it has come again with this one. */
  #isOvertaken({ record: own, position, wire }: ParkableChange): boolean {
    const { checkpoint } = this;
    if (!wire || !checkpoint.isAnyDoneBehind(position)) return false;
    return this.lane.records.some((record) => {
      if (record.index < own.index) return false;
      const isLater = (event: ChangeEventJson) => positionOf(event) > position && overtakes(event, wire);
      const found = record.events.some((event) => isLater(event) && checkpoint.isDone(positionOf(event)));
      // Plain ones stay: for the next poison change they would all be read again.
      if (record !== own && record.bytes !== undefined) record.close?.();
      return found;
    });
  }

  /** A line of class, code and position; a value only under `logErrors` (rule 30). */
  log(message: string, { position, wire }: LoggedChange, attempt: number, error: unknown): void {
    const { topic, partition } = this.lane;
    const { attempts } = this.invocation.configuration;
    const table = wire && formatTable(wire.source);
    warnOf(this.invocation, message, error, { topic, partition, position, table, attempt, attempts });
  }
}

/** Returns whether a later change makes an earlier one pointless. */
export function overtakes(later: ChangeEventJson, earlier: ChangeEventJson): boolean {
  if (later.op === "t") {
    const [a, b] = [later.source, earlier.source];
    return a.schema === b.schema && a.table === b.table;
  }
  const key = parkingKey(earlier);
  return key !== undefined && key === parkingKey(later);
}

/** Returns what is to be remembered of calls; nothing where there was none, and none still runs. */
export function attemptsOf(
  items: readonly Pick<Item, "position">[],
  calls: number,
  since: string,
  running?: RunningCall,
): Attempts | undefined {
  const [from, to] = [items[0], items.at(-1)];
  if ((calls === 0 && !running) || !from || !to) return undefined;
  const attempts = { from: from.position, to: to.position, count: items.length, calls, since };
  return running ? { ...attempts, running } : attempts;
}

/** ISO 8601. */
export function now(): string {
  return new Date().toISOString();
}
