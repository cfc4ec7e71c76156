import { setTimeout as sleep } from "node:timers/promises";
import {
  type _Record,
  DescribeStreamSummaryCommand,
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  type StreamDescriptionSummary,
} from "@aws-sdk/client-kinesis";
import { awsFailure } from "../../aws/failure.ts";
import { listShards } from "../../aws/list-shards.ts";
import { StreamAccessError, StreamNotFoundError } from "../stream-errors.ts";
import { isOfClock } from "./kinesis-writer.ts";

/** The stream whose shards are read. */
export interface ShardReaderOptions {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
  /** Time without any answer after which it is given up, in milliseconds. Default: two minutes. */
  readonly patienceMs?: number | undefined;
  readonly signal: AbortSignal;
  /** Makes the error that is thrown then. */
  readonly gaveUp: (failure: string, cause: unknown) => Error;
}

/** One answer of a shard. */
export interface ShardAnswer {
  readonly shardId: string;
  readonly records: readonly _Record[];
  /** When it was asked for, by `performance.now()`, and how far behind the shard's end the answer is. */
  readonly askedAt: number;
  readonly behindMs: number;
  /** It has as many records as an answer may have. */
  readonly isFull: boolean;
}

const PATIENCE_MS = 120_000;
/** Kinesis takes five reads a second of a shard, from all its readers together. */
const POLL_MS = 250;
const RETRY_MS = 1_000;
/** Shards that are read at once. */
const AT_ONCE = 16;
/** Most that one answer has. */
const LIMIT = 10_000;

/** Reads the records of all shards from a time on, each once: of those that were split or merged, the children too. */
export class ShardReader {
  readonly #options: ShardReaderOptions;
  #heardAt = performance.now();
  /** Ends the other shards when one fails. */
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;

  constructor(options: ShardReaderOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#failed.signal]);
  }

  /**
   * Reads each shard from a time of Kinesis on, in milliseconds since 1970 UTC, until `take` returns true for it, or it ends. Once only.
   * @throws StreamNotFoundError, StreamAccessError, what `gaveUp` makes.
   */
  async read(fromMs: number, take: (answer: ShardAnswer) => boolean): Promise<void> {
    const known = new Set<string>();
    try {
      for (;;) {
        const shards = (await this.shards()).filter((shard) => !known.has(shard));
        if (shards.length === 0) break;
        for (const shard of shards) known.add(shard);
        await this.#all(shards, fromMs, take);
        // Those that were split or merged meanwhile have children, which are read as well.
      }
    } finally {
      this.#failed.abort();
    }
  }

  async #all(shards: string[], fromMs: number, take: (answer: ShardAnswer) => boolean): Promise<void> {
    const next = async (): Promise<void> => {
      for (let shard = shards.pop(); shard !== undefined; shard = shards.pop()) {
        try {
          await this.#shard(shard, fromMs, take);
        } catch (error) {
          // A closed one goes when its last record expires.
          if (!(error instanceof StreamNotFoundError) || (await this.shards()).includes(shard)) throw error;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
  }

  /** Returns the names of all shards whose records may still be there. */
  async shards(): Promise<string[]> {
    const { kinesis, streamName } = this.#options;
    const shards = listShards(streamName, (command) =>
      this.#ask(() => kinesis.send(command, { abortSignal: this.#signal })),
    );
    const found: string[] = [];
    for await (const { ShardId } of shards) if (ShardId) found.push(ShardId);
    return found;
  }

  /** Describes the stream. */
  async describe(): Promise<StreamDescriptionSummary | undefined> {
    const { kinesis, streamName } = this.#options;
    const command = new DescribeStreamSummaryCommand({ StreamName: streamName });
    const answer = await this.#ask(() => kinesis.send(command, { abortSignal: this.#signal }));
    return answer.StreamDescriptionSummary;
  }

  async #shard(shardId: string, fromMs: number, take: (answer: ShardAnswer) => boolean): Promise<void> {
    const { kinesis } = this.#options;
    let behind: string | undefined;
    let iterator = await this.#iterator(shardId, fromMs, behind);
    // One that was split or merged has an end.
    while (iterator !== undefined) {
      const askedAt = performance.now();
      const from: string = iterator;
      const answer = await this.#ask(() =>
        kinesis.send(new GetRecordsCommand({ ShardIterator: from, Limit: LIMIT }), {
          abortSignal: this.#signal,
        }),
      ).catch((error) => {
        if ((error as Error).name !== "ExpiredIteratorException") throw error;
      });
      if (!answer) {
        iterator = await this.#iterator(shardId, fromMs, behind);
        continue;
      }
      const records = answer.Records ?? [];
      behind = records.at(-1)?.SequenceNumber ?? behind;
      const behindMs = answer.MillisBehindLatest ?? 0;
      if (take({ shardId, records, askedAt, behindMs, isFull: records.length >= LIMIT })) return;
      iterator = answer.NextShardIterator;
      if (records.length === 0) await sleep(POLL_MS, undefined, { signal: this.#signal });
    }
  }

  async #iterator(shardId: string, fromMs: number, behind: string | undefined): Promise<string | undefined> {
    const { kinesis, streamName } = this.#options;
    const command = new GetShardIteratorCommand({
      StreamName: streamName,
      ShardId: shardId,
      ...(behind === undefined
        ? { ShardIteratorType: "AT_TIMESTAMP", Timestamp: new Date(fromMs) }
        : { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber: behind }),
    });
    return (await this.#ask(() => kinesis.send(command, { abortSignal: this.#signal }))).ShardIterator;
  }

  /** Asks until there is an answer. What would be refused again is thrown. */
  async #ask<T>(send: () => Promise<T>): Promise<T> {
    const { streamName, patienceMs = PATIENCE_MS, signal } = this.#options;
    for (;;) {
      try {
        const answer = await send();
        this.#heardAt = performance.now();
        return answer;
      } catch (error) {
        signal.throwIfAborted();
        this.#failed.signal.throwIfAborted();
        const { name, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
        if (name === "ExpiredIteratorException") throw error;
        if (name === "ResourceNotFoundException") throw new StreamNotFoundError(streamName, error);
        const status = $metadata?.httpStatusCode ?? 0;
        const isThrottled = status === 429 || /Throughput|Throttling|LimitExceeded/.test(name);
        const passes = isThrottled || isOfClock(error as Error) || /Expired|TooSkewed|Timeout/.test(name);
        if (status >= 400 && status < 500 && !passes)
          throw new StreamAccessError(streamName, name, error, "read");
        if (performance.now() - this.#heardAt >= patienceMs)
          throw this.#options.gaveUp(awsFailure(error), error);
        await sleep(RETRY_MS, undefined, { signal: this.#signal });
      }
    }
  }
}
