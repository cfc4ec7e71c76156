import { errorFacts, jsonLogger } from "../api/context.ts";
import { OwnershipLostError } from "../consume-errors.ts";
import { deadLetterError } from "../dead-letter/dead-letter.ts";
import { Checkpoint } from "../fence/checkpoint.ts";
import type { PartitionProgress } from "../fence/fence-item.ts";
import type { ReplayLease } from "../fence/replay-lease.ts";
import { type PartitionOutcome, PartitionRun } from "../run/partition-run.ts";
import { type OwnedPartition, partitionStart } from "../run/partition-start.ts";
import { holdChain, holdDelay } from "./hold.ts";
import { HoldIncompleteError } from "./hold-errors.ts";
import { barredLane } from "./hold-lane.ts";
import type { PartitionHold } from "./hold-state.ts";
import type { HeldRecords, HoldPlace, HoldTable } from "./hold-table.ts";
import type { ChainPlace } from "./parked-change.ts";

/** The parts of a hold's replay: whoever replays has taken the partition. */
export interface ReplayParts extends OwnedPartition {
  readonly holds: HoldTable;
  readonly lease: ReplayLease;
  /** Milliseconds that it may take; the rest waits for the next try. */
  readonly budgetMs: number;
  /** Asked between chunks: true ends it before its time. */
  readonly isStopped?: () => boolean;
}

/** Bytes that are read before they are applied together: a run for each item would cost more than it brings. */
const CHUNK_BYTES = 2 * 1024 * 1024;

/**
 * Brings what a partition holds to effect, from behind its checkpoint on, under the rules that hold for records of the
 * stream. What is through is on record before it is removed. When all is through, the hold is over. One at a time: see
 * `ReplayLease`.
 */
export class HoldReplay {
  readonly #parts: ReplayParts;
  readonly #place: HoldPlace;
  readonly #checkpoint: Checkpoint;
  readonly #superseded: ChainPlace[] = [];
  readonly #ends: number;
  #hold: PartitionHold;
  #parked: string | undefined;
  #progress: PartitionProgress;

  constructor(parts: ReplayParts, topic: string, progress: PartitionProgress, hold: PartitionHold) {
    this.#parts = parts;
    this.#place = { topic, partition: progress.partition, id: hold.id };
    this.#checkpoint = new Checkpoint(progress, parts.startPosition);
    this.#progress = progress;
    this.#hold = hold;
    this.#parked = progress.parked;
    this.#ends = performance.now() + parts.budgetMs;
  }

  /** Never throws: what it cannot do now waits for the next try. */
  async run(): Promise<PartitionOutcome> {
    const before = this.#checkpoint.value(undefined);
    let stopped: PartitionOutcome["stopped"];
    let error: unknown;
    try {
      for await (const chunk of this.#chunks()) {
        stopped = await this.#chunk(chunk);
        if (stopped || this.#isTimeOver()) break;
      }
      if (!stopped && !this.#isTimeOver()) return await this.#over();
      error = stopped?.error;
    } catch (failure) {
      error = failure;
    }
    const { position, writer, explained } = this.#checkpoint;
    const moved = position > before.position || writer > before.writer || explained !== before.explained;
    await this.#tried(moved, error);
    return this.#outcome();
  }

  async #chunk(chunk: readonly HeldRecords[]): Promise<PartitionOutcome["stopped"]> {
    const { invocation, holds } = this.#parts;
    const lane = await barredLane(
      invocation,
      this.#place,
      chunk.flatMap(({ records }) => records),
    );
    const signal = () => invocation.deadline.storing();
    const held = { hold: this.#hold, right: this.#parts.lease };
    const start = partitionStart(this.#parts, this.#checkpoint, this.#parked, held);
    const run = await new PartitionRun(lane, start, invocation).run();
    const { progress, stopped, superseded } = run;
    // Before the checkpoint is on record: an end that has passed does not come again.
    for (const ended of run.backfilled) await invocation.missing.healedBy(lane, ended, signal());
    this.#superseded.push(...superseded);
    this.#parked = progress.parked;
    this.#progress = progress;
    if (stopped) return stopped;
    const bytes = chunk.reduce((sum, one) => sum + one.bytes, 0);
    this.#hold = { ...this.#hold, bytes: Math.max(0, this.#hold.bytes - bytes) };
    this.#progress = { ...progress, hold: this.#hold };
    await this.#note(this.#progress);
    await holds.remove(
      chunk.flatMap(({ keys }) => keys),
      signal(),
    );
    return undefined;
  }

  /** All that is held is through. */
  async #over(): Promise<PartitionOutcome> {
    const { holds, invocation } = this.#parts;
    const { intake, id } = this.#hold;
    const { position, explained = position } = this.#checkpoint;
    if (explained < intake.position) {
      await this.#tried(false, new HoldIncompleteError(this.#place, explained, intake.position));
      return this.#outcome();
    }
    this.#checkpoint.reach(position, intake.writer);
    const { hold: _over, ...progress } = this.#progress;
    const ended = { ...progress, ...this.#checkpoint.value(undefined), hold: null };
    await this.#note(ended);
    this.#log("a partition is held no more", undefined);
    const { hold: _gone, ...after } = ended;
    this.#progress = after;
    const signal = invocation.deadline.storing();
    try {
      await holds.removeAll(this.#place, signal);
      await invocation.parking.remove({ ...this.#place, chain: holdChain(id) }, signal);
    } catch (error) {
      // The dead letter is the last that goes: by it, a later redrive finds the rest.
      this.#log("what was held could not be removed", error);
    }
    return this.#outcome();
  }

  /** @throws OwnershipLostError where another invocation has the partition. */
  async #note(progress: PartitionProgress): Promise<void> {
    const { fence, place, token, invocation } = this.#parts;
    if (await fence.note(place, { progress, token }, invocation.deadline.storing())) return;
    throw new OwnershipLostError(this.#place);
  }

  /** It goes no further now: when it is tried again, and what its dead letter says. */
  async #tried(moved: boolean, failure: unknown): Promise<void> {
    // Who has taken the partition goes on at once.
    const error = failure instanceof OwnershipLostError ? undefined : failure;
    const tries = moved ? 1 : this.#hold.tries + 1;
    const later = error === undefined ? 0 : holdDelay(tries);
    const cause = error === undefined ? this.#hold.cause : deadLetterError(error).name;
    this.#hold = { ...this.#hold, cause, tries, nextTry: Date.now() + later };
    this.#progress = { ...this.#progress, hold: this.#hold };
    if (error === undefined) return;
    this.#log("a held partition waits on", error);
    const { parking, deadline } = this.#parts.invocation;
    const facts = {
      attempts: tries,
      lastFailedAt: new Date().toISOString(),
      error: deadLetterError(error),
    };
    await parking
      .failed({ ...this.#place, chain: holdChain(this.#hold.id) }, facts, deadline.storing())
      .catch(() => {});
  }

  async *#chunks(): AsyncGenerator<readonly HeldRecords[]> {
    const { holds, invocation } = this.#parts;
    let chunk: HeldRecords[] = [];
    let bytes = 0;
    for await (const held of holds.records(this.#place, this.#hold.last, invocation.deadline.storing())) {
      chunk.push(held);
      bytes += held.bytes;
      if (bytes < CHUNK_BYTES) continue;
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    if (chunk.length > 0) yield chunk;
  }

  #isTimeOver(): boolean {
    const { invocation, isStopped } = this.#parts;
    return performance.now() >= this.#ends || invocation.deadline.work.aborted || isStopped?.() === true;
  }

  #outcome(): PartitionOutcome {
    return { progress: this.#progress, stopped: undefined, superseded: this.#superseded, backfilled: [] };
  }

  #log(message: string, error: unknown): void {
    const { consumer, write } = this.#parts.invocation;
    const { topic, partition, id } = this.#place;
    const { position } = this.#checkpoint;
    const facts = error === undefined ? {} : errorFacts(error, { consumer, topic, partition });
    jsonLogger(write, { consumer, topic, partition, hold: id, mark: position, ...facts }).warn(message);
  }
}
