import type { SourceChange } from "../change/change-stream.ts";
import type { ClaimCheck } from "../change/claim-check.ts";
import { EncodedChange, POSITION_BYTES } from "../change/encoded-change.ts";
import type { PositionText } from "../change/position.ts";
import { explicitHashKey, partitionKey, type Topic } from "../change/topic.ts";
import type { BufferPool } from "./buffer-pool.ts";
import { MAX_PARTITION_KEY_CHARACTERS, type StreamLimits } from "./limits.ts";
import { type Packing, type RecordFormat, recordFormat } from "./packing.ts";
import { closingBytes, RecordBuilder, type TransactionRun } from "./record-builder.ts";
import { PartitionKeyTooLongError } from "./stream-errors.ts";

/**
 * State of a partition: `idle` (no events), `ready` (may be taken), `inFlight` (its entry is in a request),
 * `waiting` (its entry failed and backs off).
 */
export type PartitionState = "idle" | "ready" | "inFlight" | "waiting";

/** One record to be stored: an entry of PutRecords. */
export interface Entry {
  readonly queue: PartitionQueue;
  /** Used again once the entry is stored: who keeps it copies it. */
  readonly data: Buffer;
  /** Size that counts against the limits: data and partition key. */
  readonly bytes: number;
  readonly events: number;
  /** Number of control events among them. */
  readonly controlEvents: number;
  /** Size that it occupied of the buffer. */
  readonly bufferedBytes: number;
  /** Numbers of the transactions its events belong to, and how many of each. */
  readonly transactions: readonly Readonly<TransactionRun>[];
}

/** The events of one topic partition that wait to be stored, in order. */
export class PartitionQueue {
  readonly topic: string;
  readonly partition: number;
  readonly partitionKey: string;
  readonly explicitHashKey: string;
  readonly partitionKeyBytes: number;
  readonly format: RecordFormat;
  state: PartitionState = "idle";
  /** Failures of the head entry in a row. */
  failures = 0;
  readonly #targetBytes: number;
  /** Text of the position of the last event; its bytes count once there is one. */
  readonly #last = Buffer.allocUnsafe(POSITION_BYTES);
  #hasLast = false;
  /** Records of the events that wait, oldest first: events are added to the last one. */
  #records: (RecordBuilder | undefined)[] = [];
  #taken = 0;
  #sealed: { readonly entry: Entry; readonly record: RecordBuilder } | undefined;
  readonly #pool: BufferPool;

  /** @throws PartitionKeyTooLongError */
  constructor(
    topic: Topic,
    partition: number,
    options: {
      readonly writer: number;
      readonly packing: Packing;
      readonly limits: StreamLimits;
      /** Memory for the records. */
      readonly pool: BufferPool;
      /** Position of the partition's last event, where this writer has written one before. */
      readonly last?: Buffer | undefined;
      /** Default: the partition's own. */
      readonly explicitHashKey?: string;
    },
  ) {
    const { writer, packing, limits } = options;
    this.#pool = options.pool;
    this.topic = topic.name;
    this.partition = partition;
    if (options.last) {
      options.last.copy(this.#last);
      this.#hasLast = true;
    }
    if (partition < 0 || partition >= topic.partitions) {
      throw new RangeError(`topic ${topic.name} has no partition ${partition} (it has ${topic.partitions})`);
    }
    this.partitionKey = partitionKey(topic.name, partition);
    const characters = [...this.partitionKey].length;
    if (characters > MAX_PARTITION_KEY_CHARACTERS) throw new PartitionKeyTooLongError(topic.name, characters);
    this.partitionKeyBytes = Buffer.byteLength(this.partitionKey);
    this.explicitHashKey = options.explicitHashKey ?? explicitHashKey(topic, partition);
    this.format = recordFormat(packing, { topic: topic.name, partition, writer });
    this.#targetBytes = Math.min(limits.targetRecordBytes, limits.maxRecordBytes) - this.partitionKeyBytes;
  }

  /** Text of the position of the last event, if there was one. */
  get last(): Buffer | undefined {
    return this.#hasLast ? this.#last : undefined;
  }

  /** Bytes of the record that holds this event alone, partition key included. */
  bytesAlone(openBytes: number): number {
    const { tail } = this.format;
    const head = this.format.headBytes(!this.#hasLast);
    return head + this.#closed(openBytes) + tail.length + this.partitionKeyBytes;
  }

  /** Closes the event and puts it at the end; gives what that occupies of the buffer. */
  push(change: SourceChange, openBytes: number, transaction: number, sequence: number): number {
    const closed = this.#closed(openBytes);
    let record = this.#records.at(-1);
    if (
      record === undefined ||
      record.whole ||
      record.events >= this.format.maxEvents ||
      record.bytes + 1 + closed > this.#targetBytes
    ) {
      // Nothing more is added to the one before.
      if (this.#hasLast) this.#records.at(-1)?.endAt(this.#last);
      record = RecordBuilder.begin(this.format, sequence, closed, change, this.last, this.#pool);
      this.#records.push(record);
      record.add(change, openBytes, this.last, transaction);
      this.#follow(change);
      return record.capacity;
    }
    const before = record.capacity;
    record.add(change, openBytes, this.last, transaction);
    this.#follow(change);
    return record.capacity - before;
  }

  /** Puts the pointer to an event at the end; gives what it occupies of the buffer. */
  pushClaim(claim: ClaimCheck, position: PositionText, transaction: number, sequence: number): number {
    const text = this.format.claim(claim, position, this.#afterText);
    if (this.#hasLast) this.#records.at(-1)?.endAt(this.#last);
    this.#last.write(position, "latin1");
    this.#hasLast = true;
    const record = RecordBuilder.whole(text, sequence, transaction);
    this.#records.push(record);
    return record.capacity;
  }

  /** Puts a record at the end that is made already, follows nothing, and belongs to no transaction; gives what it occupies. */
  pushBeat(data: string, sequence: number): number {
    const record = RecordBuilder.whole(data, sequence, undefined);
    this.#records.push(record);
    return record.capacity;
  }

  /** Sequence of the oldest event that is not stored, or undefined when there is none. */
  get oldest(): number | undefined {
    return this.#sealed?.record.sequence ?? this.#records[this.#taken]?.sequence;
  }

  /**
   * The entry to send next: what failed before, else the oldest record.
   *
   * A failed entry is sent again byte for byte, though more events may have gathered behind it. A lost answer
   * may mean that it was stored, so a retry must begin with the same events in the same order anyway; with
   * the same bytes a duplicate is plainly a duplicate, also for readers of the stream that are not ours, a
   * request that a proxy or the network delivers late is harmless, and nothing is packed twice. The price is a
   * small record once in a while; what gathered goes into the record behind it.
   */
  head(): Entry {
    if (this.#sealed !== undefined) return this.#sealed.entry;
    const record = this.#records[this.#taken] as RecordBuilder;
    this.#records[this.#taken++] = undefined;
    if (this.#taken === this.#records.length) record.endAt(this.#last);
    if (this.#taken * 2 >= this.#records.length) {
      this.#records = this.#records.slice(this.#taken);
      this.#taken = 0;
    }
    const data = record.seal();
    const entry: Entry = {
      queue: this,
      data,
      bytes: data.length + this.partitionKeyBytes,
      events: record.events,
      controlEvents: record.controlEvents,
      bufferedBytes: record.capacity,
      transactions: record.transactions,
    };
    this.#sealed = { entry, record };
    return entry;
  }

  /** The head entry was stored: its successors may follow. */
  stored(): void {
    this.#sealed?.record.free();
    this.#sealed = undefined;
    this.failures = 0;
  }

  get #afterText(): PositionText | null {
    return this.last?.toString("latin1") ?? null;
  }

  /** Bytes of the event once closed. */
  #closed(openBytes: number): number {
    return openBytes + closingBytes(this.format, !this.#hasLast);
  }

  #follow(change: SourceChange): void {
    this.#hasLast = true;
    if (change instanceof EncodedChange) {
      const { bytes, end } = change;
      for (let i = 0; i < POSITION_BYTES; i++) this.#last[i] = bytes[end + i] as number;
    } else this.#last.write(change.position, "latin1");
  }
}
