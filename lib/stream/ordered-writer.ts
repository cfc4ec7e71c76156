import { backoffMs, type Random } from "../backoff.ts";
import type { SourceChange, SourceMessage, SourcePlace } from "../change/change-stream.ts";
import { MAX_UNCOMPRESSED_BYTES } from "../change/record.ts";
import { SHARD_TOPIC } from "../change/shard-beat.ts";
import { EVERY_PARTITION, type Topic } from "../change/topic.ts";
import { type Acknowledged, Acknowledgements } from "./acknowledgements.ts";
import { BufferPool } from "./buffer-pool.ts";
import type { ClaimedChange } from "./claim-check.ts";
import { RETRY, type StreamLimits } from "./limits.ts";
import type { OfferedChange, StreamMetrics } from "./metrics.ts";
import type { Packing } from "./packing.ts";
import { type Entry, PartitionQueue } from "./partition-queue.ts";
import { PriorityQueue } from "./priority-queue.ts";
import { openBytes } from "./record-builder.ts";
import type { EntryResult, PutRequest } from "./record-writer.ts";
import type { BeatRecord } from "./shard-beats.ts";
import { OversizeChangeError } from "./stream-errors.ts";
import { TopicQueues } from "./topic-queues.ts";

/** Options of `OrderedWriter`. */
export interface OrderedWriterOptions {
  /** Generation of the writer (the capture lease), carried by every record. */
  readonly writer: number;
  readonly packing: Packing;
  readonly limits: StreamLimits;
  readonly random: Random;
  /** Idle partitions whose queues are kept for their next events. Default 4096. */
  readonly idleQueues?: number | undefined;
}

/**
 * Time that a small request may wait, while others are under way, for events to share it: under light load a
 * change goes at once, under load a round trip's changes go together.
 */
const GATHER_MS = 10;
/** Memory of stored records that is kept for the next ones. */
const POOL_BYTES = 8 * 1024 * 1024;
/** A queue has about 1.4 KB: of 4,000 topics with 64 partitions each they would occupy 350 MB. */
const IDLE_QUEUES = 4096;

/**
 * The ordered writer as a pure machine: no clock, no promise, no network. Messages go in by `offer`, requests
 * come out by `take`, their results go in by `settle` or `fail`, and `acknowledged` says how far the source may
 * be confirmed. What it holds to, whatever the results:
 *
 * - Order: a partition has one entry in a request and one request in flight at most, and a failed entry stays at the
 *   head. So what is stored of a partition is, duplicates of the head aside, what was offered, in order.
 * - Nothing lost: an entry leaves only as stored; a commit is acknowledged only when all events up to it left.
 * - Independence: a failure holds back its own partitions alone.
 *
 * Times are milliseconds of one clock, given by the caller.
 */
export class OrderedWriter<Place extends SourcePlace = bigint> {
  readonly #options: OrderedWriterOptions;
  readonly #topics = new Map<string, TopicQueues>();
  /** Queues without events, the longest idle first: when there are more than are kept, those are released. */
  readonly #idle = new Set<PartitionQueue>();
  /** Of the shards, by their numbers. */
  readonly #beats = new Map<number, PartitionQueue>();
  /** Partitions that may be taken, the one with the oldest event first: none is passed over for ever. */
  readonly #ready = new PriorityQueue<PartitionQueue>();
  /** Partitions that back off, by the time they may be tried again. */
  readonly #waiting = new PriorityQueue<PartitionQueue>();
  readonly #acknowledgements = new Acknowledgements<Place>();
  readonly #tables = new Map<string, { changes: number; bytes: number }>();
  readonly #pool = new BufferPool(POOL_BYTES);
  /** Of the last change that was offered. */
  #latest: { readonly topic: string; readonly queues: TopicQueues } | undefined;
  #counted: { readonly table: string | undefined; readonly counts: { changes: number; bytes: number } } = {
    table: undefined,
    counts: { changes: 0, bytes: 0 },
  };
  #inFlight = 0;
  #sequence = 0;
  #bufferedBytes = 0;
  /** Time of the last request, and what was offered since. */
  #takenAt = 0;
  #gatheredBytes = 0;
  #stored = { changes: 0, records: 0, bytes: 0 };
  #requests = 0;
  #retries = 0;
  #throttles = 0;

  constructor(options: OrderedWriterOptions) {
    const { maxRecordBytes, requestBytes, requestRecords, requestsInFlight } = options.limits;
    if (maxRecordBytes > requestBytes || requestRecords < 1 || requestsInFlight < 1) {
      throw new RangeError("limits: a request must hold a record of maxRecordBytes");
    }
    this.#options = options;
  }

  /** Memory of the events that are not yet stored, in bytes. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** The place up to which the source may be confirmed, or undefined before the first. */
  get acknowledged(): Acknowledged<Place> | undefined {
    return this.#acknowledgements.acknowledged;
  }

  /**
   * Takes a message of the source, or what stands for a change of it that is stored elsewhere.
   *
   * @throws OversizeChangeError when a change alone is above the record limit; nothing was taken then.
   * @throws PartitionKeyTooLongError
   */
  offer(message: SourceMessage<Place> | ClaimedChange, now: number): void {
    if (message.kind === "change") this.#offerChange(message, now);
    else if (message.kind === "claimed") this.#offerClaimed(message, now);
    else if (message.kind === "commit") {
      this.#acknowledgements.commit(message.endPlace, message.commitTimeMs, now);
    } else if (message.kind === "receipt") this.#acknowledgements.receipt(message.stored, now);
    else this.#acknowledgements.idle(message.place, now);
  }

  /** Takes a beat for a shard, unless the one before it is still on its way. It counts for no acknowledgement. */
  offerBeat({ partition, explicitHashKey, data }: BeatRecord): void {
    const topic = { name: SHARD_TOPIC, partitions: partition + 1 };
    const known = this.#beats.get(partition);
    const queue =
      known ?? new PartitionQueue(topic, partition, { ...this.#options, pool: this.#pool, explicitHashKey });
    this.#beats.set(partition, queue);
    if (queue.state === "idle") this.#buffered(queue, queue.pushBeat(data, this.#sequence++));
  }

  /** The next request to send, or undefined when nothing may go now: then see `wakeAt`. */
  take(now: number): PutRequest | undefined {
    this.#wake(now);
    if (this.#ready.size === 0 || this.#inFlight >= this.#options.limits.requestsInFlight) return undefined;
    if (this.#gathers(now)) return undefined;
    const { limits } = this.#options;
    const entries: Entry[] = [];
    let bytes = 0;
    while (entries.length < limits.requestRecords) {
      const queue = this.#ready.take();
      if (queue === undefined) break;
      const entry = queue.head();
      if (bytes + entry.bytes > limits.requestBytes) {
        this.#makeReady(queue);
        break;
      }
      queue.state = "inFlight";
      bytes += entry.bytes;
      entries.push(entry);
    }
    this.#inFlight++;
    this.#takenAt = now;
    this.#gatheredBytes = 0;
    return { entries, bytes };
  }

  /** Time at which `take` may have something without anything else happening; undefined: never. */
  get wakeAt(): number | undefined {
    const retry = this.#waiting.leastRank;
    if (this.#ready.size === 0 || this.#inFlight >= this.#options.limits.requestsInFlight) return retry;
    return Math.min(this.#takenAt + GATHER_MS, retry ?? Number.POSITIVE_INFINITY);
  }

  /** The request was answered: one result an entry, in the request's order. */
  settle(request: PutRequest, results: readonly EntryResult[], now: number): void {
    if (results.length !== request.entries.length) {
      throw new RangeError(`${results.length} results for ${request.entries.length} entries`);
    }
    this.#inFlight--;
    this.#requests++;
    request.entries.forEach((entry, i) => {
      const result = results[i] as EntryResult;
      if (result === "stored") this.#store(entry);
      else this.#retryAt(entry, now + this.#delay(entry.queue), result);
    });
  }

  /** The whole request failed, or its answer was lost: what of it was stored is not known. */
  fail(request: PutRequest, now: number, result: "failed" | "throttled" = "failed"): void {
    this.#inFlight--;
    this.#requests++;
    // One moment for all of them, so that they share a request again.
    const delay = Math.max(...request.entries.map((entry) => this.#delay(entry.queue)));
    for (const entry of request.entries) this.#retryAt(entry, now + delay, result);
  }

  /** Counters and state. The map of tables is live. */
  metrics(now: number): Omit<StreamMetrics<Place>, "oversize"> {
    const { acknowledged, oldestSince } = this.#acknowledgements;
    return {
      ...this.#stored,
      requests: this.#requests,
      retries: this.#retries,
      throttles: this.#throttles,
      tables: this.#tables,
      bufferedBytes: this.#bufferedBytes,
      oldestUnacknowledgedMs: oldestSince === undefined ? 0 : Math.max(0, now - oldestSince),
      acknowledgedPlace: acknowledged?.place,
      acknowledgedCommitTimeMs: acknowledged?.commitTimeMs,
      newest: () => this.#newest(),
    };
  }

  #newest(): ReadonlyMap<string, OfferedChange> {
    const found = new Map<string, OfferedChange>();
    for (const [topic, { newest }] of this.#topics) {
      if (newest?.last)
        found.set(topic, { partition: newest.partition, position: newest.last.toString("latin1") });
    }
    return found;
  }

  #offerChange(change: SourceChange, now: number): void {
    const queues = this.#queues(change.topic);
    const bytes = openBytes(change);
    if (change.partition === EVERY_PARTITION) {
      // The last partition has the longest number, so what fits there fits everywhere.
      this.#refuseOversize(change, queues.queue(change.topic.partitions - 1), bytes);
      for (let i = 0; i < change.topic.partitions; i++) {
        this.#push(queues.queue(i), change, bytes, now);
      }
      queues.newest = queues.queue(change.topic.partitions - 1);
    } else {
      const queue = queues.queue(change.partition);
      this.#refuseOversize(change, queue, bytes);
      this.#push(queue, change, bytes, now);
      queues.newest = queue;
    }
    this.#count(change.table, bytes);
  }

  #offerClaimed({ topic, partition, claim, position, table }: ClaimedChange, now: number): void {
    const queues = this.#queues(topic);
    const queue = queues.queue(partition);
    const transaction = this.#acknowledgements.add(now);
    const bytes = queue.pushClaim(claim, position, transaction, this.#sequence++);
    queues.newest = queue;
    this.#gatheredBytes += bytes;
    this.#buffered(queue, bytes);
    this.#count(table, claim.bytes);
  }

  #count(table: string, eventBytes: number): void {
    // Changes come in runs of one table.
    if (table !== this.#counted.table) {
      let counts = this.#tables.get(table);
      if (counts === undefined) {
        counts = { changes: 0, bytes: 0 };
        this.#tables.set(table, counts);
      }
      this.#counted = { table, counts };
    }
    this.#counted.counts.changes++;
    this.#counted.counts.bytes += eventBytes;
  }

  #refuseOversize(change: SourceChange, queue: PartitionQueue, openBytes: number): void {
    // What a consumer gets at once is bounded too (rule 9), whatever the stream takes.
    const maxRecordBytes = Math.min(this.#options.limits.maxRecordBytes, MAX_UNCOMPRESSED_BYTES);
    const bytes = queue.bytesAlone(openBytes);
    if (bytes <= maxRecordBytes) return;
    throw new OversizeChangeError({ table: change.table, position: change.position, bytes, maxRecordBytes });
  }

  #push(queue: PartitionQueue, change: SourceChange, openBytes: number, now: number): void {
    const transaction = this.#acknowledgements.add(now);
    this.#gatheredBytes += openBytes;
    this.#buffered(queue, queue.push(change, openBytes, transaction, this.#sequence++));
  }

  #buffered(queue: PartitionQueue, bytes: number): void {
    this.#bufferedBytes += bytes;
    if (queue.state !== "idle") return;
    this.#idle.delete(queue);
    this.#makeReady(queue);
  }

  /** Keeps an idle queue for its next event, and releases the one that has been idle for longest where there are many. */
  #rest(queue: PartitionQueue): void {
    queue.state = "idle";
    this.#idle.add(queue);
    if (this.#idle.size <= (this.#options.idleQueues ?? IDLE_QUEUES)) return;
    const [longest] = this.#idle;
    if (longest === undefined) return;
    this.#idle.delete(longest);
    this.#topics.get(longest.topic)?.release(longest);
  }

  #queues(topic: Topic): TopicQueues {
    // Changes come in runs of one topic.
    if (topic.name !== this.#latest?.topic) {
      let queues = this.#topics.get(topic.name);
      if (queues === undefined) {
        const common = { ...this.#options, pool: this.#pool };
        queues = new TopicQueues(
          topic.partitions,
          (partition, last) => new PartitionQueue(topic, partition, { ...common, last }),
        );
        this.#topics.set(topic.name, queues);
      }
      this.#latest = { topic: topic.name, queues };
    }
    return this.#latest.queues;
  }

  /** Returns true if a request should wait for company: others are under way, this one would be small, and it is early. */
  #gathers(now: number): boolean {
    const { requestRecords, targetRecordBytes } = this.#options.limits;
    return (
      this.#inFlight > 0 &&
      this.#ready.size < requestRecords &&
      this.#gatheredBytes < targetRecordBytes &&
      now < this.#takenAt + GATHER_MS
    );
  }

  #wake(now: number): void {
    while ((this.#waiting.leastRank ?? Number.POSITIVE_INFINITY) <= now) {
      this.#makeReady(this.#waiting.take() as PartitionQueue);
    }
  }

  #makeReady(queue: PartitionQueue): void {
    queue.state = "ready";
    this.#ready.add(queue.oldest as number, queue);
  }

  #store(entry: Entry): void {
    const { queue } = entry;
    queue.stored();
    this.#stored.changes += entry.events - entry.controlEvents;
    this.#stored.records++;
    this.#stored.bytes += entry.bytes;
    this.#bufferedBytes -= entry.bufferedBytes;
    for (const { number, events } of entry.transactions) this.#acknowledgements.settle(number, events);
    if (queue.oldest === undefined) this.#rest(queue);
    else this.#makeReady(queue);
  }

  /** Counts the failure; gives the wait that follows it. */
  #delay(queue: PartitionQueue): number {
    queue.failures++;
    return backoffMs(queue.failures, RETRY, this.#options.random);
  }

  #retryAt(entry: Entry, at: number, result: "failed" | "throttled"): void {
    this.#retries++;
    if (result === "throttled") this.#throttles++;
    entry.queue.state = "waiting";
    this.#waiting.add(at, entry.queue);
  }
}
