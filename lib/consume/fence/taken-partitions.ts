import { failpoint } from "#failpoint";
import type { PositionText } from "../../change/position.ts";
import { OwnershipLostError } from "../consume-errors.ts";
import type { ChainPlace } from "../hold/parked-change.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import type { Deadline } from "../run/deadline.ts";
import type { PartitionLane } from "../run/ordered-batch.ts";
import type { PartitionOutcome } from "../run/partition-run.ts";
import type { LostRecords } from "./checkpoint.ts";
import type { FenceGroup, TakenPartition } from "./fence.ts";
import { groupOf } from "./fence-item.ts";
import type { ReplayLease } from "./replay-lease.ts";

/** Time that an invocation spends on removing what was parked and is superseded, at most, in milliseconds. */
const REMOVAL_MS = 2_000;

/** A partition that was taken. */
export interface Taken extends TakenPartition {
  readonly place: FenceGroup;
  readonly lane: PartitionLane;
  readonly startPosition: PositionText;
}

/** The parts of `TakenPartitions`. */
export interface TakenPartitionsOptions {
  readonly instance: ConsumerInstance;
  readonly deadline: Deadline;
  /** The invocation's. */
  readonly token: string;
  /** A partition's records come again. */
  readonly failLane: (lane: PartitionLane, error: unknown) => void;
  readonly log: (message: string, error: unknown, facts: Readonly<Record<string, unknown>>) => void;
}

/** The partitions of an invocation at the fence: how they are taken before the run, and given back behind it. */
export class TakenPartitions {
  readonly #options: TakenPartitionsOptions;
  /** Of what is replayed, until the partitions are closed. */
  readonly #leases: ReplayLease[] = [];

  constructor(options: TakenPartitionsOptions) {
    this.#options = options;
  }

  /** Keeps the lease of a replay until the partitions are closed. */
  keep(lease: ReplayLease): void {
    this.#leases.push(lease);
  }

  /** Takes the partitions, group by group; a group that cannot be taken fails alone, unless all do. */
  async take(lanes: readonly PartitionLane[]): Promise<Taken[]> {
    const groups = new Map<string, { place: FenceGroup; lanes: PartitionLane[] }>();
    for (const lane of lanes) {
      const place = { topic: lane.topic, group: groupOf(lane.partition) };
      const name = `${place.topic}/${place.group}`;
      const group = groups.get(name);
      if (group) group.lanes.push(lane);
      else groups.set(name, { place, lanes: [lane] });
    }
    const { fence, startPositions } = this.#options.instance;
    const taken: Taken[] = [];
    const errors: unknown[] = [];
    const takeGroup = async ({ place, lanes }: { place: FenceGroup; lanes: PartitionLane[] }) => {
      try {
        const startPosition = await startPositions.of(place.topic, this.#options.deadline.work);
        const partitions = lanes.map(({ partition }) => partition);
        const group = await fence.take(place, partitions, this.#options.token, this.#options.deadline.work);
        const begun = await this.#beginNew(place, lanes, group);
        for (const lane of lanes) {
          const { stored, error, ...own } = group.get(lane.partition) as TakenPartition;
          if (error !== undefined) this.#options.failLane(lane, error);
          else
            taken.push({
              place,
              lane,
              startPosition,
              ...own,
              stored: { ...stored, lost: stored.lost ?? begun },
            });
        }
      } catch (error) {
        errors.push(error);
        for (const lane of lanes) this.#options.failLane(lane, error);
      }
    };
    await Promise.all([...groups.values()].map(takeGroup));
    if (errors.length > 0 && taken.length === 0) throw errors[0];
    return taken;
  }

  /** A group of which nothing was ever there, in a shard that has lost records: what it begins with follows none of them. */
  async #beginNew(
    place: FenceGroup,
    lanes: readonly PartitionLane[],
    group: ReadonlyMap<number, TakenPartition>,
  ): Promise<LostRecords | undefined> {
    const isNew = [...group.values()].some((taken) => taken.isNew);
    const [shardId] = lanes.flatMap(({ records }) => records.map((record) => record.shardId));
    if (!isNew || shardId === undefined) return undefined;
    const until = this.#options.instance.shards.lostUntil(shardId);
    const nowMs = Date.now();
    if (typeof until !== "number" || until >= nowMs) return undefined;
    await this.#options.instance.fence.begin(place, nowMs, this.#options.deadline.work);
    return { until: nowMs, state: "settled" };
  }

  /** Writes the checkpoints and gives the partitions back; what cannot be written comes again as a whole. */
  async close(outcomes: readonly [Taken, PartitionOutcome][]): Promise<void> {
    failpoint("before-fence-close");
    const groups = Map.groupBy(outcomes, ([{ place }]) => `${place.topic}/${place.group}`);
    const closeGroup = async (entries: [Taken, PartitionOutcome][]) => {
      const [[{ place }]] = entries as [[Taken, PartitionOutcome]];
      try {
        // Before the checkpoint is on record: an end that has passed does not come again.
        for (const [{ lane }, { backfilled }] of entries) {
          for (const end of backfilled)
            await this.#options.instance.missing.healedBy(lane, end, this.#options.deadline.end);
        }
        const own = entries.map(([{ token }, { progress }]) => ({ progress, token }));
        const { lost, overtaken } = await this.#options.instance.fence.close(
          place,
          own,
          this.#options.deadline.end,
        );
        for (const [{ lane, token }, { superseded, progress, lease }] of entries) {
          const isClosed = ![...lost, ...overtaken].includes(lane.partition);
          if (!isClosed && lease)
            await this.#options.instance.fence.handOver(
              place,
              { progress, token },
              lease.name,
              this.#options.deadline.end,
            );
          if (lost.includes(lane.partition)) this.#options.failLane(lane, new OwnershipLostError(lane));
          // A successor may have put more into a chain, and lists it.
          if (isClosed) await this.#remove(superseded);
        }
      } catch (error) {
        for (const [{ lane }] of entries) this.#options.failLane(lane, error);
      }
    };
    await Promise.all([...groups.values()].map(closeGroup));
    await this.release();
  }

  /** Gives the leases of replays back: what they came to is on record, or never will be. One that stays ends by itself. */
  async release(): Promise<void> {
    for (const lease of this.#leases.splice(0))
      await lease.release(this.#options.deadline.end).catch(() => {});
  }

  /** Parked changes that are listed no more: what stays for lack of time, the next redrive removes. */
  async #remove(superseded: readonly ChainPlace[]): Promise<void> {
    const signal = AbortSignal.any([this.#options.deadline.end, AbortSignal.timeout(REMOVAL_MS)]);
    try {
      for (const place of superseded) await this.#options.instance.parking.supersede(place, signal);
    } catch (error) {
      this.#options.log("superseded changes could not be removed", error, {});
    }
  }
}
