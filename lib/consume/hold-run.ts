import { randomBytes } from "node:crypto";
import type { KinesisStreamRecord } from "aws-lambda";
import { Checkpoint, type LostRecords } from "./checkpoint.ts";
import { deadLetterError } from "./dead-letter.ts";
import { HoldFullError } from "./errors.ts";
import type { PartitionProgress, StoredPartition } from "./fence-item.ts";
import { HOLD_BYTES, type Hold, holdChain, holdDelay } from "./hold.ts";
import { type Intake, takeIn } from "./hold-intake.ts";
import { HoldReplay, type ReplayParts } from "./hold-replay.ts";
import { heldBytes } from "./hold-table.ts";
import type { BatchRecord, Lane } from "./ordered-batch.ts";
import type { PartitionOutcome } from "./partition-run.ts";

/** An invocation's part in the hold of one partition. */
export class HoldRun {
  readonly #parts: ReplayParts;
  readonly #lane: Lane;
  /** All of the invocation's records, by their index. */
  readonly #records: readonly KinesisStreamRecord[];

  constructor(parts: ReplayParts, lane: Lane, records: readonly KinesisStreamRecord[]) {
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
    const begun: Hold = {
      id: randomBytes(9).toString("base64url"),
      intake: { mark: progress.mark, writer: progress.writer },
      ...{ cause: name, since: now, last: "", bytes: 0, holes: [] },
      ...{ tries: 0, nextTry: Date.now() + holdDelay(0) },
    };
    const place = { topic: this.#lane.topic, partition: this.#lane.partition, chain: holdChain(begun.id) };
    const storing = deadline.storing();
    // First: what a process that dies here leaves in the table is found by it.
    const letter = { ...place, key: "*", table: "", position: progress.mark, attempts: 1 };
    await parking.putLetter(
      { ...letter, firstFailedAt: now, lastFailedAt: now, error: deadLetterError(error) },
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
  async goOn(stored: StoredPartition, hold: Hold): Promise<PartitionOutcome> {
    const checkpoint = new Checkpoint(stored, this.#parts.floor).value(undefined);
    const intake = await this.#take(hold, checkpoint);
    const { partition } = this.#lane;
    const lost = this.#lost(stored.lost);
    const noted = lost === stored.lost ? {} : { lost };
    const progress = { partition, ...checkpoint, ...noted, parked: stored.parked, hold: intake.hold };
    if (!intake.filled && Date.now() < hold.nextTry) return this.#outcome(progress, intake, []);
    // What was settled of expired records stands beside the checkpoint.
    const known = { ...progress, lost };
    const replay = new HoldReplay(this.#parts, this.#lane.topic, known, intake.hold);
    const outcome = await replay.run();
    return this.#outcome({ ...noted, ...outcome.progress }, intake, outcome.superseded);
  }

  /** The fence never names this hold: nothing of it stays, as far as that can be. */
  async #undo(id: string): Promise<void> {
    const { invocation, holds } = this.#parts;
    const { topic, partition } = this.#lane;
    const signal = invocation.deadline.storing();
    await holds.removeAll({ topic, partition, id }, signal);
    await invocation.parking.remove({ topic, partition, chain: holdChain(id) }, signal);
  }

  /** What may have expired before these records, for those who replay them elsewhere than in their shard. */
  #lost(known: LostRecords | undefined): LostRecords | undefined {
    const [first] = this.#lane.records;
    const until = first && this.#parts.invocation.shards.lostUntil(first.shardId);
    if (typeof until !== "number" || (known && known.until >= until)) return known;
    return { until, state: "open" };
  }

  async #take(hold: Hold, checkpoint: Parameters<typeof takeIn>[2]): Promise<Intake> {
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
