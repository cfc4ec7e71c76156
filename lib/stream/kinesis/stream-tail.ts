import { setTimeout as sleep } from "node:timers/promises";
import { GetRecordsCommand, GetShardIteratorCommand, type KinesisClient } from "@aws-sdk/client-kinesis";
import { awsFailure } from "../../aws/failure.ts";
import { listShards } from "../../aws/list-shards.ts";
import type { Tail, TailQuery } from "../record-stream.ts";
import { StreamAccessError, StreamNotFoundError, StreamTailError } from "../stream-errors.ts";
import { TailSearch } from "../tail-search.ts";
import { isOfClock } from "./kinesis-writer.ts";

/** The stream of a tail, its writer, and the time to read up to. */
export interface TailOptions extends TailQuery {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
}

/** The clock of capture and that of Kinesis may differ by so much, in milliseconds. */
const CLOCKS_MS = 30_000;
const PATIENCE_MS = 120_000;
/** Kinesis takes five reads a second of a shard, from all its readers together. */
const POLL_MS = 250;
const RETRY_MS = 1_000;
const TELL_EVERY_MS = 10_000;
/** Shards that are read at once. */
const AT_ONCE = 16;
/** Most that one answer has. */
const LIMIT = 10_000;

/**
 * Reads what a writer has left in the stream behind what it is known to have stored: all shards from a time on.
 *
 * @throws StreamNotFoundError, StreamAccessError, StreamTailError where nothing can be read for `patienceMs`.
 */
export async function readTail(options: TailOptions): Promise<Tail> {
  return await new TailReader(options).read();
}

class TailReader {
  readonly #options: TailOptions;
  readonly #search: TailSearch;
  #heardAt = performance.now();
  #toldAt = performance.now();
  /** Ends the other shards when one fails. */
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;

  constructor(options: TailOptions) {
    this.#options = options;
    this.#search = new TailSearch(options);
    this.#signal = AbortSignal.any([options.signal, this.#failed.signal]);
  }

  async read(): Promise<Tail> {
    const known = new Set<string>();
    try {
      for (;;) {
        const shards = (await this.#shards()).filter((shard) => !known.has(shard));
        if (shards.length === 0) break;
        for (const shard of shards) known.add(shard);
        await this.#all(shards);
        // Those that were split or merged meanwhile have children, which are read as well.
      }
    } finally {
      this.#failed.abort();
    }
    return this.#search.tail;
  }

  async #all(shards: string[]): Promise<void> {
    const next = async (): Promise<void> => {
      for (let shard = shards.pop(); shard !== undefined; shard = shards.pop()) {
        try {
          await this.#shard(shard);
        } catch (error) {
          // A closed one goes when its last record expires.
          if (!(error instanceof StreamNotFoundError) || (await this.#shards()).includes(shard)) throw error;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
  }

  async #shards(): Promise<string[]> {
    const { kinesis, streamName } = this.#options;
    const shards = listShards(streamName, (command) =>
      this.#ask(() => kinesis.send(command, { abortSignal: this.#signal })),
    );
    const found: string[] = [];
    for await (const { ShardId } of shards) if (ShardId) found.push(ShardId);
    return found;
  }

  async #shard(shardId: string): Promise<void> {
    const { kinesis, untilMs } = this.#options;
    let behind: string | undefined;
    let iterator = await this.#iterator(shardId, behind);
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
        iterator = await this.#iterator(shardId, behind);
        continue;
      }
      const records = answer.Records ?? [];
      for (const { Data: data = new Uint8Array() } of records) this.#search.take(data);
      behind = records.at(-1)?.SequenceNumber ?? behind;
      this.#tell();
      // As far as this answer goes, or further: others write on.
      const isRead = askedAt - (answer.MillisBehindLatest ?? 0) >= untilMs && records.length < LIMIT;
      if (isRead) return;
      iterator = answer.NextShardIterator;
      if (records.length === 0) await sleep(POLL_MS, undefined, { signal: this.#signal });
    }
  }

  async #iterator(shardId: string, behind: string | undefined): Promise<string | undefined> {
    const { kinesis, streamName, sinceMs } = this.#options;
    const start = Math.max(0, Math.min(sinceMs, Date.now()) - CLOCKS_MS);
    const command = new GetShardIteratorCommand({
      StreamName: streamName,
      ShardId: shardId,
      ...(behind === undefined
        ? { ShardIteratorType: "AT_TIMESTAMP", Timestamp: new Date(start) }
        : { ShardIteratorType: "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber: behind }),
    });
    return (await this.#ask(() => kinesis.send(command, { abortSignal: this.#signal }))).ShardIterator;
  }

  #tell(): void {
    const now = performance.now();
    if (now - this.#toldAt < TELL_EVERY_MS) return;
    this.#toldAt = now;
    this.#options.log.info("reading what the task before left in the stream", { ...this.#search.counts });
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
          throw new StreamTailError(streamName, awsFailure(error), error);
        await sleep(RETRY_MS, undefined, { signal: this.#signal });
      }
    }
  }
}
