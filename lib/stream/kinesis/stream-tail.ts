import { setTimeout as sleep } from "node:timers/promises";
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
  type _Record as StoredRecord,
} from "@aws-sdk/client-kinesis";
import { awsFailure } from "../../aws/failure.ts";
import { isControlEvent } from "../../change/control-event.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import { commitPrefix, isOwnPlace, type PositionText } from "../../change/position.ts";
import { parseRecord, positionOf } from "../../change/record.ts";
import { readHeader } from "../../change/record-header.ts";
import { StreamAccessError, StreamNotFoundError, StreamTailError } from "../stream-errors.ts";
import type { StreamLog } from "../stream-log.ts";
import { isOfClock } from "./kinesis-writer.ts";

/** Whose records are looked for, and how far. */
export interface TailOptions {
  readonly kinesis: KinesisClient;
  readonly streamName: string;
  /** Of the pipeline: another one's records may be in the stream, whose writers and positions are counted alike. */
  readonly topicPrefix: string;
  /** Generation of the writer. */
  readonly writer: number;
  readonly epoch: number;
  /** Changes from here on. */
  readonly fromLsn: bigint;
  /** The records came later than this, in milliseconds since 1970 UTC. */
  readonly sinceMs: number;
  /** Everything is read that came before this time, of `performance.now()`. */
  readonly untilMs: number;
  /** Time without any answer after which it is given up, in milliseconds. Default: two minutes. */
  readonly patienceMs?: number;
  readonly signal: AbortSignal;
  readonly log: StreamLog;
}

/** The last change of a writer that the stream has, as far as its record tells. */
export interface TailEnd {
  readonly position: PositionText;
  /** Of its transaction, empty for what stands outside of transactions; undefined where the change travels by claim check. */
  readonly txId?: string | undefined;
  readonly timeMs?: number | undefined;
}

/** What was found. */
export interface Tail {
  /** The last change, and where that travels by claim check the last one that does not. */
  readonly ends: readonly TailEnd[];
  /** What was read: everybody's records. */
  readonly records: number;
  readonly bytes: number;
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
 * Reads what a writer has left in the stream behind what it is known to have stored: all shards from a time on, and of each record
 * only what stands around its events. Keeps two records, whatever the stream holds.
 *
 * @throws StreamNotFoundError, StreamAccessError, StreamTailError where nothing can be read for `patienceMs`.
 */
export async function readTail(options: TailOptions): Promise<Tail> {
  return await new TailReader(options).read();
}

interface Found {
  readonly last: PositionText;
  readonly data?: Uint8Array;
}

const NOTHING: Found = { last: "" };

class TailReader {
  readonly #options: TailOptions;
  readonly #from: PositionText;
  readonly #to: PositionText;
  /** The last of those whose events can be read, and of all of them. */
  #lastEvents: Found = NOTHING;
  #last: Found = NOTHING;
  #records = 0;
  #bytes = 0;
  #heardAt = performance.now();
  #toldAt = performance.now();
  /** Ends the other shards when one fails. */
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;

  constructor(options: TailOptions) {
    this.#options = options;
    const { epoch, fromLsn, signal } = options;
    this.#from = commitPrefix(epoch, fromLsn);
    this.#to = commitPrefix(epoch + 1, 0n);
    this.#signal = AbortSignal.any([signal, this.#failed.signal]);
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
    const ends: TailEnd[] = [];
    for (const { data } of new Set([this.#lastEvents, this.#last])) {
      const end = data && endOf(data);
      if (end) ends.push(end);
    }
    return { ends, records: this.#records, bytes: this.#bytes };
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
    const found: string[] = [];
    let next: string | undefined;
    do {
      const answer = await this.#ask(() =>
        kinesis.send(new ListShardsCommand(next ? { NextToken: next } : { StreamName: streamName }), {
          abortSignal: this.#signal,
        }),
      );
      for (const { ShardId } of answer.Shards ?? []) if (ShardId) found.push(ShardId);
      next = answer.NextToken;
    } while (next);
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
      for (const record of records) this.#take(record);
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

  #take({ Data: data = new Uint8Array() }: StoredRecord): void {
    this.#records++;
    this.#bytes += data.length;
    const header = readHeader(data);
    const { writer, topicPrefix } = this.#options;
    if (header?.writer !== writer || !header.topic.startsWith(`${topicPrefix}.`)) return;
    if (header.last < this.#from || header.last >= this.#to) return;
    // A barrier stands at no place of the log; what is in a record before one is looked at.
    const last = isOwnPlace(header.last) ? header.last : (endOf(data)?.position ?? "");
    const found = { last, data };
    if (last > this.#last.last) this.#last = found;
    if (!isClaim(data) && last > this.#lastEvents.last) this.#lastEvents = found;
  }

  #tell(): void {
    const now = performance.now();
    if (now - this.#toldAt < TELL_EVERY_MS) return;
    this.#toldAt = now;
    this.#options.log.info("reading what the task before left in the stream", {
      records: this.#records,
      bytes: this.#bytes,
    });
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

/** A row's value may look like it: then its record is read as what it is all the same. */
function isClaim(data: Uint8Array): boolean {
  return Buffer.from(data.buffer, data.byteOffset, Math.min(data.length, 8192)).includes(',"claim":{');
}

/** Undefined: nothing in it stands at a place of the log. */
function endOf(data: Uint8Array): TailEnd | undefined {
  let events: readonly ChangeEventJson[] = [];
  try {
    const record = parseRecord(data);
    if (record.kind === "events") events = record.events;
  } catch {
    // Not JSON that we can read; where it stands is known.
  }
  const event = events.findLast((each) => isOwnPlace(positionOf(each)));
  if (!event) {
    const { last = "" } = events.length === 0 ? (readHeader(data) ?? {}) : {};
    return isOwnPlace(last) ? { position: last } : undefined;
  }
  const position = positionOf(event);
  const { txId, ts_ms: timeMs } = event.source;
  // One of ours may stand where a commit does.
  return isControlEvent(event) ? { position } : { position, txId, timeMs };
}
