import {
  type _Record,
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
} from "@aws-sdk/client-kinesis";
import { backoffMs } from "../../backoff.ts";
import { MappedStreamNotFoundError } from "./mapping-errors.ts";
import { pause, withDeadline } from "./wait.ts";

/** Dependencies of `ShardPoller`. */
export interface PollerContext {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
  readonly shardId: string;
  readonly signal: AbortSignal;
  /** Returns the number of shards that the mapping reads now. */
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
  /** The sequence number of the last record that was read; undefined: from the shard's beginning. */
  #after: string | undefined;
  #iterator: string | undefined;
  #limit = FIRST_LIMIT;
  #millisBehindLatest = 0;

  constructor(context: PollerContext, after: string | undefined) {
    this.#context = context;
    this.#after = after;
  }

  get millisBehindLatest(): number {
    return this.#millisBehindLatest;
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
    this.#after = last;
    return records;
  }

  async #newIterator(): Promise<string> {
    const { kinesis, streamName, shardId, signal } = this.#context;
    const command = new GetShardIteratorCommand({
      StreamName: streamName,
      ShardId: shardId,
      ...(this.#after === undefined
        ? { ShardIteratorType: "TRIM_HORIZON" }
        : { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber: this.#after }),
    });
    const { ShardIterator } = await withDeadline(signal, CALL_DEADLINE_MS, (abortSignal) =>
      kinesis.send(command, { abortSignal }),
    );
    if (ShardIterator === undefined) throw new Error("Kinesis gave no iterator");
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
