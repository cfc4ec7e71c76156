import type { ChangeEventJson } from "../../change/event.ts";
import { eventTexts } from "../../change/event-texts.ts";
import { positionOf, type RecordHeader, type RecordRange } from "../../change/record.ts";
import { RecordFormatError } from "../../change/record-errors.ts";
import type { BatchRecord, UnreadableEvents } from "./batch-record.ts";

type RecordPlace = Pick<BatchRecord, "index" | "sequenceNumber" | "shardId" | "arrivedMs">;

interface WholeRecord {
  readonly partitionKey: string;
  readonly data: string;
  /** Names it in errors. */
  readonly which: () => string;
}

/**
 * A record whose events are read when they are asked for, and are there until `close`. Compressed, a payload of 6 MB can
 * hold 160 of 4 MiB each; plain ones would all be alive at once, and be copied by the garbage collector.
 */
export class UnreadRecord implements BatchRecord {
  readonly index: number;
  readonly sequenceNumber: string;
  readonly shardId: string;
  readonly arrivedMs: number | undefined;
  readonly topic: string;
  readonly partition: number;
  readonly writer: number;
  readonly range: RecordRange;
  /** Its events take memory in proportion to this. */
  readonly bytes: number | undefined;
  readonly #read: () => readonly ChangeEventJson[] | undefined;
  readonly #whole: WholeRecord;
  #events: readonly ChangeEventJson[] | undefined;
  #texts: readonly string[] | undefined;
  #unreadable: UnreadableEvents | undefined;

  constructor(
    place: RecordPlace,
    header: RecordHeader,
    range: RecordRange,
    whole: WholeRecord,
    read: () => readonly ChangeEventJson[] | undefined,
    bytes?: number,
  ) {
    this.index = place.index;
    this.sequenceNumber = place.sequenceNumber;
    this.shardId = place.shardId;
    this.arrivedMs = place.arrivedMs;
    this.topic = header.topic;
    this.partition = header.partition;
    this.writer = header.writer;
    this.range = { first: range.first, last: range.last, after: range.after };
    this.#read = read;
    this.bytes = bytes;
    this.#whole = whole;
  }

  /** None where they cannot be read: then `unreadable` says why. */
  get events(): readonly ChangeEventJson[] {
    if (this.#unreadable) return [];
    this.#events ??= this.#checked();
    return this.#events;
  }

  /** Known once the events were asked for. */
  get unreadable(): UnreadableEvents | undefined {
    return this.#unreadable;
  }

  verbatim(event: number): string {
    const texts = this.#texts ?? eventTexts(Buffer.from(this.#whole.data, "base64"));
    // Kept as long as the events, and plain ones longer: in a call that failed all are asked for, after the record was closed.
    if (this.#events || this.bytes === undefined) this.#texts = texts;
    return texts[event] as string;
  }

  /** Lets go of the events. */
  close(): void {
    this.#events = undefined;
    this.#texts = undefined;
  }

  #checked(): readonly ChangeEventJson[] {
    try {
      const events = this.#read();
      const { first, last, after } = this.range;
      const found = events && rangeOf(events);
      if (!events || found?.first !== first || found.last !== last || found.after !== after)
        throw new RecordFormatError("events: not those that its header names");
      return events;
    } catch (error) {
      if (!(error instanceof RecordFormatError)) throw error;
      const { which, ...whole } = this.#whole;
      this.#unreadable = { ...this.range, ...whole, error: new RecordFormatError(error.problem, which()) };
      return [];
    }
  }
}

/** Returns the range of a record's events, as its header states it. */
export function rangeOf(events: readonly ChangeEventJson[]): RecordRange {
  const [first, last] = [events[0], events.at(-1)] as [ChangeEventJson, ChangeEventJson];
  return { first: positionOf(first), last: positionOf(last), after: first.source.after };
}
