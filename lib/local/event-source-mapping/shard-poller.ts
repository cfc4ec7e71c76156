import {
  type _Record,
  GetRecordsCommand,
  GetShardIteratorCommand,
  type GetShardIteratorCommandInput,
  type KinesisClient,
} from "@aws-sdk/client-kinesis";
import { backoffMs } from "../../backoff.ts";
import { MappedStreamNotFoundError } from "./mapping-errors.ts";
import { pause, withDeadline } from "./wait.ts";

/** Place from which a shard is read. */
export type ShardPosition =
  | { readonly kind: "sequence"; readonly sequenceNumber: string }
  | { readonly kind: "since"; readonly arrivedAt: number }
  | { readonly kind: "TRIM_HORIZON" }
  | { readonly kind: "LATEST" };

/** Dependencies of `ShardPoller`. */
export interface PollerContext {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
  readonly shardId: string;
  readonly signal: AbortSignal;
  /** How many shards the mapping reads now. */
  readonly openShards: () => number;
  readonly onTrouble: (call: string, error: unknown) => void;
}

/**
 * Between polls of an idle shard, in milliseconds: doubled from the first to the last while nothing comes. A poll costs about
 * a millisecond of CPU here and one in the emulator: from the third shard on, the last grows by `perShard`.
 */
const IDLE_MS = { first: 5, last: 20, perShard: 10, atMost: 100 } as const;
/** Between tries of a failing call, in milliseconds. */
const RETRY = { baseMs: 50, capMs: 5_000 };
const CALL_DEADLINE_MS = 30_000;
/** Bytes that one GetRecords should bring: an emulator may not keep AWS's own bound of 10 MiB. */
const READ_BYTES = 8 * 1024 * 1024;
const FIRST_LIMIT = 100;
const THROTTLES = [
  "ProvisionedThroughputExceededException",
  "LimitExceededException",
  "KMSThrottlingException",
];

/**
 * Reads one shard along one chain of iterators: at once again after records, after 5 to 20 ms when there were none (more with many shards), with
 * growing pauses after errors. An expired iterator is replaced at the place reached.
 */
export class ShardPoller {
  readonly #context: PollerContext;
  #position: ShardPosition;
  #iterator: string | undefined;
  /** Set while the iterator starts before the position: records that arrived earlier do not count. */
  #dropBefore: number | undefined;
  #limit = FIRST_LIMIT;
  #millisBehindLatest = 0;

  constructor(context: PollerContext, position: ShardPosition) {
    this.#context = context;
    this.#position = position;
  }

  get millisBehindLatest(): number {
    return this.#millisBehindLatest;
  }

  /** Fixes the start: with LATEST, records put after this resolves are read. Tries until the signal is aborted. */
  async open(): Promise<void> {
    await this.#repeat("GetShardIterator", async () => {
      this.#iterator ??= await this.#newIterator();
    });
  }

  /**
   * Reads until the shard's end (true) or the signal (false), giving every read's records to `deliver`, which holds the next
   * read back until it resolves.
   * @throws MappedStreamNotFoundError when the stream is gone
   */
  async run(deliver: (records: readonly _Record[]) => Promise<void>): Promise<boolean> {
    const { signal } = this.#context;
    let idle = 0;
    while (!signal.aborted) {
      const records = await this.#repeat("GetRecords", () => this.#read());
      if (!records) return false;
      if (records.length > 0) await deliver(records);
      if (this.#iterator === undefined) return true;
      idle = records.length > 0 ? 0 : nextIdle(idle, this.#context.openShards());
      if (idle > 0) await pause(idle, signal);
    }
    return false;
  }

  async #read(): Promise<readonly _Record[]> {
    this.#iterator ??= await this.#newIterator();
    const { kinesis, signal } = this.#context;
    const command = new GetRecordsCommand({ ShardIterator: this.#iterator, Limit: this.#limit });
    const answer = await withDeadline(signal, CALL_DEADLINE_MS, (abortSignal) =>
      kinesis.send(command, { abortSignal }),
    );
    this.#iterator = answer.NextShardIterator ?? undefined;
    this.#millisBehindLatest = answer.MillisBehindLatest ?? 0;
    const records = answer.Records ?? [];
    const last = records.at(-1)?.SequenceNumber;
    if (last === undefined) return records;
    const bytes = records.reduce((sum, record) => sum + (record.Data?.byteLength ?? 0), 0);
    this.#limit = Math.max(
      1,
      Math.min(10_000, Math.floor(READ_BYTES / Math.max(256, bytes / records.length))),
    );
    const dropBefore = this.#dropBefore;
    const first =
      dropBefore === undefined
        ? 0
        : records.findIndex((record) => (record.ApproximateArrivalTimestamp?.getTime() ?? 0) >= dropBefore);
    if (first === -1) return [];
    this.#dropBefore = undefined;
    this.#position = { kind: "sequence", sequenceNumber: last };
    return first === 0 ? records : records.slice(first);
  }

  async #newIterator(): Promise<string> {
    const { kinesis, streamName, shardId, signal } = this.#context;
    const openedAt = Date.now();
    const command = new GetShardIteratorCommand({
      StreamName: streamName,
      ShardId: shardId,
      ...iteratorOf(this.#position),
    });
    const { ShardIterator } = await withDeadline(signal, CALL_DEADLINE_MS, (abortSignal) =>
      kinesis.send(command, { abortSignal }),
    );
    if (ShardIterator === undefined) throw new Error("Kinesis gave no iterator");
    const position = this.#position;
    this.#dropBefore = position.kind === "since" ? position.arrivedAt : undefined;
    // Should this iterator be lost before it brought a record, LATEST would be a later place.
    if (position.kind === "LATEST") this.#position = { kind: "since", arrivedAt: openedAt };
    return ShardIterator;
  }

  /** Makes a call until it succeeds; undefined when the signal was aborted. */
  async #repeat<T>(call: string, make: () => Promise<T>): Promise<T | undefined> {
    const { signal, streamName, onTrouble } = this.#context;
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await make();
      } catch (error) {
        const name = error instanceof Error ? error.name : "";
        if (signal.aborted) break;
        if (name === "ResourceNotFoundException") throw new MappedStreamNotFoundError(streamName, error);
        onTrouble(call, error);
        if (!THROTTLES.includes(name)) this.#iterator = undefined;
        // An expired iterator is no sign of trouble at the other end.
        if (name === "ExpiredIteratorException" && failures === 1) continue;
        await pause(backoffMs(failures, RETRY), signal);
      }
    }
    return undefined;
  }
}

function nextIdle(idle: number, openShards: number): number {
  const last = Math.min(IDLE_MS.atMost, Math.max(IDLE_MS.last, IDLE_MS.perShard * openShards));
  return Math.min(last, Math.max(IDLE_MS.first, idle * 2));
}

function iteratorOf(position: ShardPosition): Pick<GetShardIteratorCommandInput, "StartingSequenceNumber"> & {
  ShardIteratorType: "LATEST" | "TRIM_HORIZON" | "AFTER_SEQUENCE_NUMBER";
} {
  switch (position.kind) {
    case "sequence":
      return { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber: position.sequenceNumber };
    case "LATEST":
      return { ShardIteratorType: "LATEST" };
    default:
      return { ShardIteratorType: "TRIM_HORIZON" };
  }
}
