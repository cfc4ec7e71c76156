import type { PositionText } from "../change/position.ts";
import type { ClaimCheck } from "../change/record.ts";
import { explicitHashKey, partitionKey, type Topic } from "../change/topic.ts";
import { PartitionKeyTooLongError } from "./errors.ts";
import { MAX_PARTITION_KEY_CHARACTERS, type StreamLimits } from "./limits.ts";
import { type Packing, type RecordFormat, recordFormat } from "./packing.ts";

/**
 * Where a partition stands: `idle` (no events), `ready` (may be taken), `inFlight` (its entry is in a request),
 * `waiting` (its entry failed and backs off).
 */
export type PartitionState = "idle" | "ready" | "inFlight" | "waiting";

/** One record to be stored: an entry of PutRecords. */
export interface Entry {
  readonly queue: PartitionQueue;
  readonly data: Uint8Array;
  /** What it counts against the limits: data and partition key. */
  readonly bytes: number;
  readonly events: number;
  /** What it occupied of the buffer. */
  readonly bufferedBytes: number;
  /** Numbers of the transactions its events belong to, and how many of each. */
  readonly transactions: readonly { readonly number: number; readonly events: number }[];
}

interface WaitingEvent {
  readonly text: string;
  readonly bytes: number;
  /** The text is the data of a record, not an event to be packed. */
  readonly whole: boolean;
  readonly transaction: number;
  /** Place among all events of the writer. */
  readonly sequence: number;
}

/** What an event occupies beside its text: objects and references, about. */
const EVENT_OVERHEAD_BYTES = 128;

/** The events of one topic partition that wait to be stored, in order. */
export class PartitionQueue {
  readonly partitionKey: string;
  readonly explicitHashKey: string;
  readonly partitionKeyBytes: number;
  readonly format: RecordFormat;
  state: PartitionState = "idle";
  /** Failures of the head entry in a row. */
  failures = 0;
  #last: PositionText | null = null;
  #events: (WaitingEvent | undefined)[] = [];
  #taken = 0;
  #sealed: (Entry & { readonly sequence: number }) | undefined;

  /** @throws PartitionKeyTooLongError */
  constructor(topic: Topic, partition: number, writer: number, packing: Packing) {
    if (partition < 0 || partition >= topic.partitions) {
      throw new RangeError(`topic ${topic.name} has no partition ${partition} (it has ${topic.partitions})`);
    }
    this.partitionKey = partitionKey(topic.name, partition);
    const characters = [...this.partitionKey].length;
    if (characters > MAX_PARTITION_KEY_CHARACTERS) throw new PartitionKeyTooLongError(topic.name, characters);
    this.partitionKeyBytes = Buffer.byteLength(this.partitionKey);
    this.explicitHashKey = explicitHashKey(topic, partition);
    this.format = recordFormat(packing, { topic: topic.name, partition, writer });
  }

  /** Bytes of the record that holds this event alone, partition key included. */
  bytesAlone(jsonBytes: number): number {
    return (
      this.format.overheadBytes +
      jsonBytes +
      Buffer.byteLength(this.format.tail(this.#last)) +
      this.partitionKeyBytes
    );
  }

  /** Closes the event and puts it at the end; gives what it occupies of the buffer. */
  push(
    json: string,
    jsonBytes: number,
    position: PositionText,
    transaction: number,
    sequence: number,
  ): number {
    const tail = this.format.tail(this.#last);
    const bytes = jsonBytes + Buffer.byteLength(tail);
    this.#last = position;
    this.#events.push({ text: json + tail, bytes, whole: false, transaction, sequence });
    return bytes + EVENT_OVERHEAD_BYTES;
  }

  /** Puts the pointer to an event at the end; gives what it occupies of the buffer. */
  pushClaim(claim: ClaimCheck, position: PositionText, transaction: number, sequence: number): number {
    const text = this.format.claim(claim, position, this.#last);
    const bytes = Buffer.byteLength(text);
    this.#last = position;
    this.#events.push({ text, bytes, whole: true, transaction, sequence });
    return bytes + EVENT_OVERHEAD_BYTES;
  }

  /** Sequence of the oldest event that is not stored, or undefined when there is none. */
  get oldest(): number | undefined {
    return this.#sealed?.sequence ?? this.#events[this.#taken]?.sequence;
  }

  /**
   * The entry to send next: what failed before, else as many of the oldest events as go into a record.
   *
   * A failed entry is sent again byte for byte, though more events may have gathered behind it. A lost answer
   * may mean that it was stored, so a retry must begin with the same events in the same order anyway; with
   * the same bytes a duplicate is plainly a duplicate, also for readers of the stream that are not ours, a
   * request that a proxy or the network delivers late is harmless, and nothing is packed twice. The price is a
   * small record once in a while; what gathered goes into the record behind it.
   */
  head(limits: StreamLimits): Entry {
    if (this.#sealed !== undefined) return this.#sealed;
    const target = Math.min(limits.targetRecordBytes, limits.maxRecordBytes);
    const texts: string[] = [];
    const transactions: { number: number; events: number }[] = [];
    const first = this.#events[this.#taken] as WaitingEvent;
    const maxEvents = first.whole ? 1 : this.format.maxEvents;
    let bytes = this.partitionKeyBytes + (first.whole ? 0 : this.format.overheadBytes);
    let occupied = 0;
    let next = this.#taken;
    for (; next < this.#events.length && texts.length < maxEvents; next++) {
      const event = this.#events[next] as WaitingEvent;
      const more = event.bytes + (texts.length > 0 ? 1 : 0);
      if (texts.length > 0 && (event.whole || bytes + more > target)) break;
      bytes += more;
      occupied += event.bytes + EVENT_OVERHEAD_BYTES;
      texts.push(event.text);
      const run = transactions.at(-1);
      if (run?.number === event.transaction) run.events++;
      else transactions.push({ number: event.transaction, events: 1 });
    }
    this.#cut(next);
    this.#sealed = {
      queue: this,
      data: first.whole ? Buffer.from(first.text) : this.format.data(texts),
      bytes,
      events: texts.length,
      bufferedBytes: occupied,
      transactions,
      sequence: first.sequence,
    };
    return this.#sealed;
  }

  /** The head entry was stored: its successors may follow. */
  stored(): void {
    this.#sealed = undefined;
    this.failures = 0;
  }

  /** Forgets the events before `next`; moves the others only when they are the smaller part. */
  #cut(next: number): void {
    if (next === this.#events.length) {
      this.#events = [];
      this.#taken = 0;
    } else if (next * 2 > this.#events.length) {
      this.#events = this.#events.slice(next);
      this.#taken = 0;
    } else {
      // The texts are in the entry now: do not hold them twice.
      this.#events.fill(undefined, this.#taken, next);
      this.#taken = next;
    }
  }
}
