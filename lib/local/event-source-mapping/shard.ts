import type { _Record } from "@aws-sdk/client-kinesis";
import { backoffMs } from "../../backoff.ts";
import { MAX_PAYLOAD_BYTES } from "../lambda/invocation.ts";
import { type CheckpointStore, CompletedPrefix, type ShardCheckpoint } from "./checkpoint.ts";
import { type DeliveryContext, deliverBatch } from "./delivery.ts";
import { type EventOrigin, type QueuedRecord, queuedRecord } from "./event.ts";
import type { ShardStats } from "./events.ts";
import { laneOf, ShardLane } from "./lanes.ts";
import type { MappingSettings } from "./options.ts";
import { type PollerContext, ShardPoller } from "./shard-poller.ts";
import { Condition, pause } from "./wait.ts";

/** Dependencies of `ShardConsumer`. */
export interface ShardContext extends Omit<DeliveryContext, "complete" | "onInvoked">, PollerContext {
  readonly settings: MappingSettings;
  readonly origin: EventOrigin;
  readonly matches: (data: Uint8Array) => boolean;
  readonly checkpoints: CheckpointStore;
  readonly onInvoked: (lane: number, invoked: Parameters<DeliveryContext["onInvoked"]>[0]) => void;
  readonly onRead: (read: number, filtered: number) => void;
  readonly onCompleted: (records: number) => void;
  /** The shard cannot be read any more: stops the mapping. */
  readonly onFatal: (error: unknown) => void;
  readonly onCheckpoint: (sequenceNumber: string) => void;
}

/** Between tries of a failing save, in milliseconds. */
const RETRY = { baseMs: 50, capMs: 5_000 };

/** Reads one shard, invokes the function lane by lane, and moves the shard's checkpoint behind what all lanes have done. */
export class ShardConsumer {
  readonly #context: ShardContext;
  readonly #poller: ShardPoller;
  readonly #lanes: readonly ShardLane[];
  readonly #prefix = new CompletedPrefix();
  /** Something came into a lane, left the buffer, or ended. */
  readonly #changed = new Condition();
  readonly #maximumPendingBytes: number;
  #pendingBytes = 0;
  #reached: string | undefined;
  #saved: string | undefined;
  #saving: Promise<void> | undefined;

  constructor(context: ShardContext, after: string | undefined) {
    this.#context = context;
    this.#poller = new ShardPoller(context, after);
    const lanes = context.settings.parallelizationFactor;
    this.#lanes = Array.from({ length: lanes }, () => new ShardLane(this.#changed));
    // Each lane can fill a payload while one more is read ahead.
    this.#maximumPendingBytes = (lanes + 1) * MAX_PAYLOAD_BYTES;
  }

  get stats(): ShardStats {
    return {
      shardId: this.#context.shardId,
      checkpoint: this.#saved,
      pendingBytes: this.#pendingBytes,
      millisBehindLatest: this.#poller.millisBehindLatest,
    };
  }

  /** Resolves true when the shard is closed and everything in it is done and stored, false when the mapping stopped before. */
  async run(): Promise<boolean> {
    const delivering = Promise.all(this.#lanes.map((lane, i) => this.#runLane(lane, i)));
    let ended = false;
    try {
      ended = await this.#poller.run((records) => this.#accept(records));
    } catch (error) {
      this.#context.onFatal(error);
    }
    if (ended) for (const lane of this.#lanes) lane.end();
    this.#changed.notify();
    await delivering;
    await this.#saving;
    return ended && this.#prefix.empty && (await this.#store({ kind: "finished" }));
  }

  async #accept(records: readonly _Record[]): Promise<void> {
    const { shardId, origin, matches, onRead, signal } = this.#context;
    let filtered = 0;
    for (const record of records) {
      const passes = matches(record.Data ?? new Uint8Array());
      this.#prefix.add(record.SequenceNumber ?? "", !passes);
      if (!passes) {
        filtered++;
        continue;
      }
      const queued = queuedRecord(origin, shardId, record);
      this.#pendingBytes += queued.payloadBytes;
      this.#lanes[laneOf(queued.event.kinesis.partitionKey, this.#lanes.length)]?.push(queued);
    }
    onRead(records.length, filtered);
    this.#moveCheckpoint();
    this.#changed.notify();
    while (this.#pendingBytes > this.#maximumPendingBytes && !signal.aborted)
      await this.#changed.wait(signal);
  }

  async #runLane(lane: ShardLane, number: number): Promise<void> {
    const { settings, signal } = this.#context;
    const context: DeliveryContext = {
      ...this.#context,
      onInvoked: (invoked) => this.#context.onInvoked(number, invoked),
      complete: (records) => this.#complete(records),
    };
    for (;;) {
      const batch = await lane.nextBatch(settings, signal);
      if (!batch) return;
      await deliverBatch(batch, context);
    }
  }

  #complete(records: readonly QueuedRecord[]): void {
    if (records.length === 0) return;
    for (const { event, payloadBytes } of records) {
      this.#prefix.complete(event.kinesis.sequenceNumber);
      this.#pendingBytes -= payloadBytes;
    }
    this.#context.onCompleted(records.length);
    this.#moveCheckpoint();
    this.#changed.notify();
  }

  #moveCheckpoint(): void {
    const reached = this.#prefix.take();
    if (reached === undefined) return;
    this.#reached = reached;
    this.#saving ??= this.#save().finally(() => {
      this.#saving = undefined;
    });
  }

  /** One save at a time, always of the latest. */
  async #save(): Promise<void> {
    while (this.#saved !== this.#reached) {
      const sequenceNumber = this.#reached as string;
      if (!(await this.#store({ kind: "sequence", sequenceNumber }))) return;
      this.#saved = sequenceNumber;
      this.#context.onCheckpoint(sequenceNumber);
    }
  }

  /** Tries until the checkpoint is stored (true) or nobody waits any more. */
  async #store(checkpoint: ShardCheckpoint): Promise<boolean> {
    const { checkpoints, shardId, abandoned, onTrouble } = this.#context;
    for (let failures = 1; !abandoned.aborted; failures++) {
      try {
        await checkpoints.save(shardId, checkpoint);
        return true;
      } catch (error) {
        onTrouble("checkpoint store", error);
        await pause(backoffMs(failures, RETRY), abandoned);
      }
    }
    return false;
  }
}
