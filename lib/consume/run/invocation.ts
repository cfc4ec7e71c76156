import { randomBytes } from "node:crypto";
import type { KinesisStreamBatchResponse, KinesisStreamEvent } from "aws-lambda";
import { failpoint } from "#failpoint";
import { readShardBeat, SHARD_TOPIC, type ShardBeat } from "../../change/shard-beat.ts";
import { fenceKey } from "../../state/state-key.ts";
import { runSideBySide } from "../api/concurrency.ts";
import { jsonLogger, warnOf } from "../api/context.ts";
import { RecordNotSupportedError, StateItemError } from "../consume-errors.ts";
import { giveUpRecord } from "../dead-letter/dead-record.ts";
import { Checkpoint } from "../fence/checkpoint.ts";
import type { FenceGroup } from "../fence/fence.ts";
import type { ReplayLease } from "../fence/replay-lease.ts";
import { type Taken, TakenPartitions } from "../fence/taken-partitions.ts";
import { withBarred } from "../hold/hold-lane.ts";
import { HoldRun } from "../hold/hold-run.ts";
import { faultOfKeys } from "../hold/parked-keys.ts";
import type { BatchRecord, UnreadableRecord } from "./batch-record.ts";
import { asInvocation, type ConsumerInstance } from "./consumer-instance.ts";
import { Deadline } from "./deadline.ts";
import { InvocationCounts, tellObserver } from "./observer.ts";
import { orderedBatch, type PartitionLane, shardIdOf } from "./ordered-batch.ts";
import type { Invocation } from "./partition.ts";
import { type PartitionOutcome, PartitionRun } from "./partition-run.ts";
import { partitionStart } from "./partition-start.ts";

/** Partitions of an invocation that run at the same time. */
const SIDE_BY_SIDE = 16;
/** Runs one invocation of a consumer: unpack, take, apply, close, and say what must come again. */
export async function runInvocation(
  instance: ConsumerInstance,
  event: KinesisStreamEvent,
  remainingMs: number,
): Promise<KinesisStreamBatchResponse> {
  const started = performance.now();
  const deadline = new Deadline(remainingMs);
  try {
    const run = new InvocationRun(instance, event, deadline);
    const paused = await instance.pause.look(deadline.work);
    // Rule 62: nothing is applied, nothing acknowledged.
    if (paused) run.failures.lowest = 0;
    else await run.run();
    failpoint("fence-closed");
    const { counts, failures } = run;
    const { consumer, registry } = instance;
    const durationMs = performance.now() - started;
    const report = counts.report(consumer, failures.partitions, durationMs, registry.unmatched, paused?.told);
    await tellObserver(
      () => instance.observer.invocation(report),
      deadline.untilEndMs(),
      jsonLogger(instance.write, { consumer: instance.consumer }),
    );
    const lowest = failures.lowest === undefined ? undefined : event.Records[failures.lowest];
    return {
      batchItemFailures: lowest ? [{ itemIdentifier: lowest.kinesis.sequenceNumber }] : [],
    };
  } finally {
    deadline.clear();
  }
}

class InvocationRun {
  readonly counts = new InvocationCounts();
  readonly failures: { lowest: number | undefined; partitions: number } = {
    lowest: undefined,
    partitions: 0,
  };
  readonly #instance: ConsumerInstance;
  readonly #event: KinesisStreamEvent;
  readonly #deadline: Deadline;
  readonly #token = randomBytes(12).toString("base64url");
  readonly #partitions: TakenPartitions;

  constructor(instance: ConsumerInstance, event: KinesisStreamEvent, deadline: Deadline) {
    this.#instance = instance;
    this.#event = event;
    this.#deadline = deadline;
    this.#partitions = new TakenPartitions({
      ...{ instance, deadline, token: this.#token },
      failLane: (lane, error) => this.#failLane(lane, error),
      log: (message, error, facts) => this.#log(message, error, facts),
    });
  }

  async run(): Promise<void> {
    const { lanes, unreadable } = orderedBatch(this.#event.Records);
    const { lanes: all, rest } = withBarred(lanes, unreadable, this.#instance);
    const { own, beats } = this.#sort(all);
    await this.#enter(beats);
    const waiting = await this.#unreadable(rest);
    const taken = await this.#partitions.take(waiting === undefined ? own : before(waiting, own));
    failpoint("fence-taken");
    await this.#run(taken).finally(() => this.#partitions.release());
    await this.#finished(beats.length > 0);
  }

  async #run(taken: Taken[]): Promise<void> {
    // With a predecessor that died, one at a time, and what was under way last: so that the culprit is found.
    const careful = taken.some(({ stored }) => stored.token !== undefined);
    if (!careful) return this.#partitions.close(await this.#apply(taken, false, SIDE_BY_SIDE));
    for (const one of taken.sort((a, b) => Number(!!a.stored.attempts) - Number(!!b.stored.attempts))) {
      await this.#partitions.close(await this.#apply([one], true, 1));
    }
  }

  /** The partitions that are the consumer's business, and the beats of the shard. */
  #sort(lanes: readonly PartitionLane[]): {
    readonly own: PartitionLane[];
    readonly beats: readonly ShardBeat[];
  } {
    const isBeat = ({ topic }: PartitionLane) => topic === SHARD_TOPIC;
    const beats = lanes.filter(isBeat).flatMap(({ records }) => records.flatMap(({ events }) => events));
    return {
      own: lanes.filter((lane) => !isBeat(lane) && this.#instance.isOwn(lane.topic)),
      beats: beats.flatMap((event) => readShardBeat(event) ?? []),
    };
  }

  /** The records of an invocation are of one shard. */
  async #enter(beats: readonly ShardBeat[]): Promise<void> {
    const [first] = this.#event.Records;
    if (!first) return;
    await this.#instance.shards.enter(shardIdOf(first), first.eventSourceARN, beats, this.#deadline.work);
  }

  /** Notes how far the shard is finished: up to the first record that comes again. */
  async #finished(sawBeat: boolean): Promise<void> {
    const records = this.#event.Records.slice(0, this.failures.lowest);
    const last = records.at(-1);
    if (!last) return;
    const arrivedMs = Math.floor(last.kinesis.approximateArrivalTimestamp * 1000);
    const whole = sawBeat && this.failures.lowest === undefined;
    try {
      await this.#instance.shards.finished(shardIdOf(last), arrivedMs, whole, this.#deadline.end);
    } catch (error) {
      this.#log("how far the shard is finished could not be noted", error, {});
    }
  }

  /** Disposes of records that cannot be read. Returns the place of the first that must come again. */
  async #unreadable(records: readonly UnreadableRecord[]): Promise<number | undefined> {
    for (const record of records) {
      try {
        if (record.error instanceof RecordNotSupportedError) throw record.error;
        await giveUpRecord(this.#invocation(), record);
      } catch (error) {
        const { partitionKey, shardId, sequenceNumber } = record;
        this.#fail(record.index, error, { partitionKey, shardId, sequenceNumber });
        return record.index;
      }
    }
    return undefined;
  }

  #invocation(): Invocation {
    return asInvocation(this.#instance, {
      ...{ deadline: this.#deadline, counts: this.counts, token: this.#token },
    });
  }

  /** Runs partitions and tells where each stands. */
  async #apply(
    taken: readonly Taken[],
    careful: boolean,
    sideBySide: number,
  ): Promise<[Taken, PartitionOutcome][]> {
    const invocation = this.#invocation();
    const outcomes: [Taken, PartitionOutcome][] = [];
    await runSideBySide(taken, sideBySide, async (one) => {
      const { place, lane, stored } = one;
      const fault = stored.fault ?? faultOfKeys(stored.parked, lane.partition);
      if (fault !== undefined) return this.#failLane(lane, this.#altered(place, fault));
      const outcome = await this.#one(one, invocation, careful);
      if (!outcome) return;
      outcomes.push([one, outcome]);
      const { hold } = outcome.progress;
      if (hold) this.counts.holds(hold.bytes);
      if (outcome.stopped) {
        const { record, error } = outcome.stopped;
        this.#fail(record.index, error, {
          topic: lane.topic,
          partition: lane.partition,
          mark: outcome.progress.position,
        });
      }
    });
    return outcomes;
  }

  /** Runs one partition. What waits for somebody is held; where that cannot be, the partition's records come again. */
  async #one(one: Taken, invocation: Invocation, careful: boolean): Promise<PartitionOutcome | undefined> {
    const { fence, items } = this.#instance;
    const { place, lane, stored, token, startPosition } = one;
    const budgetMs = this.#deadline.remainingMs() / 2;
    const item = items.item(lane.topic, lane.partition, this.#deadline.end);
    const leased = (lease: ReplayLease) => this.#partitions.keep(lease);
    const parts = { ...this.#instance, ...one, invocation, careful, budgetMs, item, leased };
    const hold = new HoldRun(parts, lane, this.#event.Records);
    if (stored.hold) {
      try {
        return await hold.goOn(stored, stored.hold);
      } catch (error) {
        this.counts.holds(stored.hold.bytes);
        this.#failLane(lane, error);
        // Without a word on where it stands: another may have written that meanwhile.
        const storing = this.#deadline.storing();
        await fence.giveBack(place, lane.partition, token, storing).catch(() => {});
        return undefined;
      }
    }
    const start = partitionStart(parts, new Checkpoint(stored, startPosition), stored.parked);
    const outcome = await new PartitionRun(lane, start, invocation).run();
    const { stopped } = outcome;
    if (!stopped?.held) return outcome;
    try {
      const held = await hold.begin(outcome, stopped.error);
      this.#log("a partition is held, its shard goes on", stopped.error, {
        ...{ topic: lane.topic, partition: lane.partition, mark: outcome.progress.position },
        ...this.#placeOf(stopped.record),
      });
      return held;
    } catch (error) {
      this.#log("a partition could not be held", error, { topic: lane.topic, partition: lane.partition });
      return outcome;
    }
  }

  /** That partition waits alone: what stands in the fence is not to be built on. */
  #altered({ topic, group }: FenceGroup, fault: string): StateItemError {
    const { consumer } = this.#instance;
    return new StateItemError(consumer, fenceKey({ pipeline: "", consumer }, topic, group).sk, fault);
  }

  /** Returns the place of a record in the stream, for the log. */
  #placeOf({ index, shardId, sequenceNumber }: BatchRecord) {
    return { partitionKey: this.#event.Records[index]?.kinesis.partitionKey, shardId, sequenceNumber };
  }

  #failLane({ topic, partition, records }: PartitionLane, error: unknown): void {
    const [first] = records;
    if (!first) return;
    const { sequenceNumber } = first;
    this.#fail(first.index, error, { topic, partition, sequenceNumber });
  }

  #fail(index: number, error: unknown, facts: Readonly<Record<string, unknown>>): void {
    this.failures.partitions++;
    this.failures.lowest = Math.min(this.failures.lowest ?? index, index);
    this.#log("a partition stopped, its records come again", error, facts);
  }

  #log(message: string, error: unknown, facts: Readonly<Record<string, unknown>>): void {
    warnOf(this.#instance, message, error, facts);
  }
}

/** Returns what stands before a record that must come again; the rest comes with it. */
function before(index: number, lanes: readonly PartitionLane[]): PartitionLane[] {
  return lanes
    .map((lane) => ({ ...lane, records: lane.records.filter((record) => record.index < index) }))
    .filter(({ records }) => records.length > 0);
}
