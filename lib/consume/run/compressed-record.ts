import type { ChangeEventJson } from "../../change/event.ts";
import { eventTexts } from "../../change/event-texts.ts";
import {
  type CompressedRecord,
  compressedEvents,
  MAX_UNCOMPRESSED_BYTES,
  positionOf,
  type RecordRange,
  uncompressedBytes,
} from "../../change/record.ts";
import { RecordFormatError } from "../../change/record-errors.ts";
import type { BatchRecord, UnreadableEvents } from "./batch-record.ts";
import { parseExactJson } from "./json.ts";

type Place = Pick<BatchRecord, "index" | "sequenceNumber" | "shardId" | "arrivedMs">;

/**
 * A record whose events are compressed. A payload of 6 MB can hold 160 of 4 MiB each: their events are there only from when
 * they are asked for until `close`.
 */
export class CompressedEvents implements BatchRecord {
  readonly index: number;
  readonly sequenceNumber: string;
  readonly shardId: string;
  readonly arrivedMs: number | undefined;
  readonly topic: string;
  readonly partition: number;
  readonly writer: number;
  readonly range: RecordRange;
  /** What its events take in memory is in proportion to this. */
  readonly bytes: number;
  readonly #compressed: string;
  readonly #partitionKey: string;
  readonly #data: string;
  /** Names it in errors. */
  readonly #which: string;
  #events: readonly ChangeEventJson[] | undefined;
  #texts: readonly string[] | undefined;
  #unreadable: UnreadableEvents | undefined;

  constructor(
    place: Place,
    record: CompressedRecord,
    range: RecordRange,
    whole: { readonly partitionKey: string; readonly data: string; readonly which: string },
  ) {
    this.index = place.index;
    this.sequenceNumber = place.sequenceNumber;
    this.shardId = place.shardId;
    this.arrivedMs = place.arrivedMs;
    this.topic = record.topic;
    this.partition = record.partition;
    this.writer = record.writer;
    this.range = range;
    this.#compressed = record.compressed;
    this.bytes = Math.min(uncompressedBytes(record.compressed), MAX_UNCOMPRESSED_BYTES);
    this.#partitionKey = whole.partitionKey;
    this.#data = whole.data;
    this.#which = whole.which;
  }

  /** None where they cannot be read: then `unreadable` says why. */
  get events(): readonly ChangeEventJson[] {
    if (this.#unreadable) return [];
    this.#events ??= this.#read();
    return this.#events;
  }

  /** Known once the events were asked for. */
  get unreadable(): UnreadableEvents | undefined {
    return this.#unreadable;
  }

  verbatim(event: number): string {
    const texts = this.#texts ?? eventTexts(Buffer.from(this.#data, "base64"));
    // Kept as long as the events: many of them may be asked for.
    if (this.#events) this.#texts = texts;
    return texts[event] as string;
  }

  /** Lets go of the events. */
  close(): void {
    this.#events = undefined;
    this.#texts = undefined;
  }

  #read(): readonly ChangeEventJson[] {
    try {
      const events = compressedEvents(this.#compressed, parseExactJson);
      const { first, last, after } = rangeOf(events);
      if (first !== this.range.first || last !== this.range.last || after !== this.range.after)
        throw new RecordFormatError("events: not those that its header names");
      return events;
    } catch (error) {
      if (!(error instanceof RecordFormatError)) throw error;
      const [partitionKey, data] = [this.#partitionKey, this.#data];
      const named = new RecordFormatError(error.problem, this.#which);
      this.#unreadable = { ...this.range, partitionKey, data, error: named };
      return [];
    }
  }
}

/** Returns the range of a record's events, as its header states it. */
export function rangeOf(events: readonly ChangeEventJson[]): RecordRange {
  const [first, last] = [events[0], events.at(-1)] as [ChangeEventJson, ChangeEventJson];
  return { first: positionOf(first), last: positionOf(last), after: first.source.after };
}
