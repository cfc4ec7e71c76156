import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { KinesisStreamRecord } from "aws-lambda";
import { OwnershipLostError } from "../consume-errors.ts";
import { deadLetterError } from "../dead-letter/dead-letter.ts";
import { Checkpoint, type LostRecords } from "../fence/checkpoint.ts";
import type { PartitionProgress, StoredPartition } from "../fence/fence-item.ts";
import type { PartitionItem } from "../fence/partition-item.ts";
import { isLive, PartitionLease } from "../fence/partition-lease.ts";
import { ReplayLease, takeReplay } from "../fence/replay-lease.ts";
import type { BatchRecord } from "../run/batch-record.ts";
import type { PartitionLane } from "../run/ordered-batch.ts";
import type { PartitionOutcome } from "../run/partition-run.ts";
import { HOLD_BYTES, holdChain, holdDelay, withExpired } from "./hold.ts";
import { HoldAtWorkError, HoldFullError } from "./hold-errors.ts";
import { type Intake, takeIn } from "./hold-intake.ts";
import { HoldReplay, type ReplayParts } from "./hold-replay.ts";
import type { PartitionHold } from "./hold-state.ts";
import { heldBytes } from "./hold-table.ts";

/** The parts of an invocation that a hold needs. */
export interface HoldParts extends Omit<ReplayParts, "lease"> {
  /** The group of the partition in the fence. */
  readonly item: PartitionItem;
  /** Told of each lease that is taken, so that none is renewed beyond the invocation. */
  readonly leased: (lease: ReplayLease) => void;
}

/** Between two looks at whether another has ended its replay. */
const POLL_MS = 50;

/** An invocation's part in the hold of one partition. */
export class HoldRun {
  readonly #parts: HoldParts;
  readonly #lane: PartitionLane;
  /** All of the invocation's records, by their index. */
  readonly #records: readonly KinesisStreamRecord[];

  constructor(parts: HoldParts, lane: PartitionLane, records: readonly KinesisStreamRecord[]) {
    this.#parts = parts;
    this.#lane = lane;
    this.#records = records;
  }

  /**
   * The partition stopped at what waits for somebody: what is not done of its records is held, and the shard goes on.
   * @throws errors of the state table: then its records come again.
   */
  async begin(
    { progress, superseded, backfilled }: PartitionOutcome,
    error: unknown,
  ): Promise<PartitionOutcome> {
    const { parking, deadline } = this.#parts.invocation;
    const now = new Date().toISOString();
    const { name } = deadLetterError(error);
    const begun: PartitionHold = {
      id: randomBytes(9).toString("base64url"),
      intake: { position: progress.position, writer: progress.writer },
      ...{ cause: name, since: now, last: "", bytes: 0, holes: [] },
      ...{ tries: 0, nextTry: Date.now() + holdDelay(0) },
    };
    const place = { topic: this.#lane.topic, partition: this.#lane.partition, chain: holdChain(begun.id) };
    const storing = deadline.storing();
    // First: what a process that dies here leaves in the table is found by it.
    const deadLetter = { ...place, key: "*", table: "", position: progress.position, attempts: 1 };
    await parking.putDeadLetter(
      { ...deadLetter, firstFailedAt: now, lastFailedAt: now, error: deadLetterError(error) },
      storing,
    );
    const intake = await this.#take(begun, progress).catch(async (failure: unknown) => {
      await this.#undo(begun.id).catch(() => {});
      throw failure;
    });
    return { ...this.#outcome({ ...progress, hold: intake.hold }, intake, superseded), backfilled };
  }

  /**
   * The partition is held: what came is held behind the rest. Then, when it is time or a missing record has come, what is
   * held is tried.
   * @throws errors of the state table: then its records come again.
   */
  async goOn(before: StoredPartition, seen: PartitionHold): Promise<PartitionOutcome> {
    const alone = await this.#alone(before, seen);
    const { stored } = alone;
    const until = this.#lostUntil();
    const isOpen = stored.lost?.state === "open";
    const hold = isOpen && until > stored.lost.until ? withExpired(alone.hold, until) : alone.hold;
    const isTime = Date.now() >= hold.nextTry;
    const checkpoint = new Checkpoint(stored, this.#parts.startPosition).value(undefined);
    const intake = await this.#take(hold, checkpoint);
    const { partition } = this.#lane;
    const lost = this.#lost(stored.lost);
    const noted = lost === stored.lost ? {} : { lost };
    const progress = { partition, ...checkpoint, ...noted, parked: stored.parked, hold: intake.hold };
    let { lease } = alone;
    if (intake.filled) lease ??= await this.#lease();
    const held = { ...this.#outcome(progress, intake, []), lease };
    if (!lease || !(intake.filled || isTime)) return held;
    // What was settled of expired records stands beside the checkpoint.
    const known = { ...progress, lost };
    const replay = new HoldReplay({ ...this.#parts, lease }, this.#lane.topic, known, intake.hold);
    const outcome = await replay.run();
    return { ...this.#outcome({ ...noted, ...outcome.progress }, intake, outcome.superseded), lease };
  }

  /**
   * Waits until nobody else replays what is held: where the partition was taken from a redrive at work, that one writes what it
   * has come to. With the lease where it is time for a replay, or where one may sleep that had it.
   * @throws HoldAtWorkError, OwnershipLostError, and errors of the state table.
   */
  async #alone(
    before: StoredPartition,
    seen: PartitionHold,
  ): Promise<{ stored: StoredPartition; hold: PartitionHold; lease: ReplayLease | undefined }> {
    const known = before.replay !== undefined;
    if (!known && Date.now() < seen.nextTry) return { stored: before, hold: seen, lease: undefined };
    const { invocation, fence, place, token, budgetMs } = this.#parts;
    const { work, end } = invocation.deadline;
    const until = performance.now() + budgetMs;
    let lease = isLive(before.replay) ? undefined : await this.#lease();
    if (lease && !known) return { stored: before, hold: seen, lease };
    for (;;) {
      const stored = await fence.look(place, this.#lane.partition, token, end);
      if (!stored?.hold) throw new OwnershipLostError(this.#lane);
      if (lease) return { stored, hold: stored.hold, lease };
      if (work.aborted || performance.now() >= until)
        throw new HoldAtWorkError(this.#lane, stored.replay?.end ?? Date.now());
      await sleep(POLL_MS, undefined, { signal: work }).catch(() => {});
      if (!isLive(stored.replay)) lease = await this.#lease();
    }
  }

  /** Undefined where another has it. @throws OwnershipLostError */
  async #lease(): Promise<ReplayLease | undefined> {
    const { item, token, invocation, leased } = this.#parts;
    const taken = await takeReplay(item, invocation.token);
    if (!(taken instanceof PartitionLease)) return undefined;
    const lease = new ReplayLease(taken, token);
    leased(lease);
    // Who takes the partition from now on sees the lease, and waits for it. One that took it before does not.
    if (await lease.confirm()) return lease;
    await lease.release(invocation.deadline.end).catch(() => {});
    throw new OwnershipLostError(this.#lane);
  }

  /** The fence never names this hold: nothing of it stays, as far as that can be. */
  async #undo(id: string): Promise<void> {
    const { invocation, holds } = this.#parts;
    const { topic, partition } = this.#lane;
    const signal = invocation.deadline.storing();
    await holds.removeAll({ topic, partition, id }, signal);
    await invocation.parking.remove({ topic, partition, chain: holdChain(id) }, signal);
  }

  /** Returns what may have expired before these records, for those who replay them elsewhere than in their shard. */
  #lost(known: LostRecords | undefined): LostRecords | undefined {
    const until = this.#lostUntil();
    // One that is open stays what it is: the records that stand behind it decide.
    if (until === 0 || (known && (known.state === "open" || known.until >= until))) return known;
    return { until, state: "open" };
  }

  /** Zero: nothing may have expired. */
  #lostUntil(): number {
    const [first] = this.#lane.records;
    const until = first && this.#parts.invocation.shards.lostUntil(first.shardId);
    return typeof until === "number" ? until : 0;
  }

  async #take(hold: PartitionHold, checkpoint: Parameters<typeof takeIn>[2]): Promise<Intake> {
    const { invocation, holds } = this.#parts;
    const { topic, partition } = this.#lane;
    const raw = ({ index }: BatchRecord) => this.#records[index] as KinesisStreamRecord;
    const intake = takeIn(this.#lane.records, hold, checkpoint, (record) => heldBytes(raw(record)));
    const runs = intake.runs.map((run) => run.map(raw));
    await holds.put({ topic, partition, id: hold.id }, runs, invocation.token, invocation.deadline.storing());
    invocation.counts.staleWriter += intake.stale;
    return intake;
  }

  #outcome(
    progress: PartitionProgress,
    { refused, hold }: Intake,
    superseded: PartitionOutcome["superseded"],
  ): PartitionOutcome {
    if (refused) this.#parts.invocation.counts.holdFull++;
    const error = refused && new HoldFullError(this.#lane, HOLD_BYTES, hold.cause);
    return { progress, superseded, backfilled: [], stopped: refused && { record: refused, error } };
  }
}
