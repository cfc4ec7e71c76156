import { gunzipSync } from "node:zlib";
import { type ClaimCheck, storedClaimCheck } from "./claim-check.ts";
import type { ChangeEventJson } from "./event.ts";
import { eventFault } from "./event-check.ts";
import { type PositionText, printedPosition } from "./position.ts";
import { RecordFormatError } from "./record-errors.ts";
import { fitting, objectOf, oneOf, position, type Shape, text, wholeFrom, word } from "./shape.ts";

/** Version of the record format that this code writes; readers refuse a newer one. */
export const RECORD_VERSION = 1;

/** Largest size of a record's JSON once uncompressed (rule 9), in bytes. */
export const MAX_UNCOMPRESSED_BYTES = 4 * 1024 * 1024;

/** The topic partition of a record, and its writer. */
export interface RecordHeader {
  readonly topic: string;
  readonly partition: number;
  /** The writer's generation (the capture lease): once a newer one was seen, an older one is dropped (rule 8). */
  readonly writer: number;
}

/**
 * The changes of its partition that a record holds. It stands ahead of the events, so that it is known of a record whose
 * events cannot be read (rule 34). Records of earlier versions lack it.
 */
export interface RecordRange {
  readonly first: PositionText;
  readonly last: PositionText;
  /** Position of the predecessor of `first` in the partition; null after a writer start. */
  readonly after: PositionText | null;
}

/** Change events of one topic partition, in order. */
export interface EventsRecord extends RecordHeader {
  readonly kind: "events";
  readonly events: readonly ChangeEventJson[];
}

/** One change event that travels by claim check: the object is the event as a record of its own, unpacked. */
export interface ClaimRecord extends RecordHeader {
  readonly kind: "claim";
  readonly claim: ClaimCheck;
  readonly position: PositionText;
  /** The event's `source.after`: the object was written before it was known, and says null. */
  readonly after: PositionText | null;
}

/** Change events of one topic partition, as base64 of their gzip. */
export interface CompressedRecord extends RecordHeader {
  readonly kind: "compressed";
  readonly compressed: string;
}

/** Reads JSON. */
type ParseJson = (json: string) => unknown;

/** A record of the stream, parsed. */
export type StreamRecord = EventsRecord | ClaimRecord;

/**
 * Returns the start of a packed record; its events follow, parted by commas, and then `RECORD_TAIL`. Without a
 * range it is a record as earlier versions wrote it.
 */
export function recordHead(header: RecordHeader, range?: RecordRange): string {
  return `${openHeader(header, range)},"events":[`;
}

/** Text behind the events of a packed record. */
export const RECORD_TAIL = "]}";

/** Returns the text before the base64 of a packed record whose events are compressed; `COMPRESSED_TAIL` stands behind it. */
export function compressedHead(header: RecordHeader, range?: RecordRange): string {
  return `${openHeader(header, range)},"encoding":"gzip","events":"`;
}

/** Text behind compressed events. */
export const COMPRESSED_TAIL = '"}';

/** Closes an open event (see `SourceChange.json`) for a packed record. */
export function eventTail(after: PositionText | null): string {
  return after === null ? ',"after":null}}' : `,"after":"${after}"}}`;
}

/**
 * Closes an open event for a record of its own: what the packed record says around it stands in its `source`. Without a
 * position it is a record as earlier versions wrote it.
 */
export function unpackedEventTail(
  after: PositionText | null,
  header: RecordHeader,
  position?: PositionText,
): string {
  const topic = JSON.stringify(header.topic);
  const place = `"topic":${topic},"partition":${header.partition},"writer":${header.writer}`;
  return `,"after":${positionJson(after)},${place}${position === undefined ? "" : `,"first":"${position}","last":"${position}"`}}}`;
}

/** The data of the record that stands for an event by claim check. */
export function claimRecord(
  header: RecordHeader,
  claim: ClaimCheck,
  position: PositionText,
  after: PositionText | null,
): string {
  const open = openHeader(header, { first: position, last: position, after });
  return `${open},"claim":${JSON.stringify(claim)},"position":"${position}"}`;
}

function openHeader({ topic, partition, writer }: RecordHeader, range: RecordRange | undefined): string {
  const place = `{"v":${RECORD_VERSION},"topic":${JSON.stringify(topic)},"partition":${partition},"writer":${writer}`;
  if (range === undefined) return place;
  return `${place},"first":"${range.first}","last":"${range.last}","after":${positionJson(range.after)}`;
}

function positionJson(position: PositionText | null): string {
  return position === null ? "null" : `"${position}"`;
}

/** The position of an event: its identity (`event.id`). */
export function positionOf(event: ChangeEventJson): PositionText {
  const { epoch, commitLsn, ordinal } = event.source;
  return printedPosition(epoch, commitLsn, ordinal);
}

const count = wholeFrom(0);
const header = { v: oneOf([RECORD_VERSION]), topic: word, partition: count, writer: count };

const compressed = objectOf({ ...header, encoding: oneOf(["gzip"]), events: text });
const claimed = objectOf({
  ...header,
  claim: storedClaimCheck,
  position,
  after: ((value) => (value === null ? [] : position(value))) as Shape<PositionText | null>,
});

/**
 * Reads a Kinesis record's data: packed, compressed, claim check or one unpacked event. `parse` reads JSON
 * (the consumer library gives one that keeps large numbers exact).
 *
 * @throws RecordFormatError naming what is wrong, never the values.
 */
export function parseRecord(data: Uint8Array, parse: ParseJson = JSON.parse): StreamRecord {
  const record = openRecord(data, parse);
  if (record.kind !== "compressed") return record;
  const { topic, partition, writer, compressed } = record;
  return { kind: "events", topic, partition, writer, events: compressedEvents(compressed, parse) };
}

/**
 * Reads a Kinesis record's data as `parseRecord` does, but leaves compressed events as they are: they may take many times
 * the memory.
 * @throws RecordFormatError
 */
export function openRecord(data: Uint8Array, parse: ParseJson): StreamRecord | CompressedRecord {
  const value = readJson(data, parse, "its data");
  if (typeof value !== "object" || value === null)
    throw new RecordFormatError("its data is not a JSON object");
  if ("claim" in value) {
    const { topic, partition, writer, claim, position, after } = fitting(claimed, value, misshapen);
    return { kind: "claim", topic, partition, writer, claim, position, after };
  }
  if ("op" in value) {
    const event = checkEvent(value);
    return { kind: "events", ...checkHeader(event.source, "source."), events: [event] };
  }
  if ("encoding" in value) {
    const { topic, partition, writer, events } = fitting(compressed, value, misshapen);
    return { kind: "compressed", topic, partition, writer, compressed: events };
  }
  const { v, events } = value as { readonly v?: unknown; readonly events?: unknown };
  if (v !== RECORD_VERSION) throw new RecordFormatError(`v: expected ${RECORD_VERSION}`);
  return { kind: "events", ...checkHeader(value), events: checkEvents(events) };
}

/**
 * The events of a compressed record.
 * @throws RecordFormatError
 */
export function compressedEvents(base64: string, parse: ParseJson): ChangeEventJson[] {
  return checkEvents(readJson(gunzipEvents(base64), parse, "events"));
}

/** By hand, as events are: unpacked, each event has one. */
function checkHeader(value: object, at = ""): RecordHeader {
  const { topic, partition, writer } = value as { readonly [K in keyof RecordHeader]?: unknown };
  if (typeof topic !== "string" || topic === "") throw new RecordFormatError(`${at}topic: expected a text`);
  if (!isCount(partition)) throw new RecordFormatError(`${at}partition: expected a whole number from 0`);
  if (!isCount(writer)) throw new RecordFormatError(`${at}writer: expected a whole number from 0`);
  return { topic, partition, writer };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function checkEvents(list: unknown): ChangeEventJson[] {
  if (!Array.isArray(list) || list.length === 0)
    throw new RecordFormatError("events: expected an array with at least one event");
  for (let i = 0; i < list.length; i++) checkEvent(list[i], i);
  return list;
}

/** `index` is its place among the record's events; undefined where it is the record. */
function checkEvent(value: unknown, index?: number): ChangeEventJson {
  const fault = eventFault(value);
  if (fault !== undefined) {
    const [at, expected] = fault;
    const path = [...(index === undefined ? [] : ["events", String(index)]), ...(at ? [at] : [])].join(".");
    throw new RecordFormatError(`${path || "its data"}: expected ${expected}`);
  }
  return value as ChangeEventJson;
}

function misshapen(path: string, problem: string): RecordFormatError {
  return new RecordFormatError(`${path || "its data"}: ${problem}`);
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws RecordFormatError naming `what` where it is not UTF-8. */
export function decodeText(data: Uint8Array, what: string): string {
  try {
    return UTF8.decode(data);
  } catch {
    throw new RecordFormatError(`${what} is not UTF-8`);
  }
}

/** Neither decoder's nor parser's error is passed on: both may quote the text. */
function readJson(data: Uint8Array, parse: (json: string) => unknown, what: string): unknown {
  const text = decodeText(data, what);
  try {
    return parse(text);
  } catch {
    throw new RecordFormatError(`${what} is not JSON`);
  }
}

/**
 * The JSON of compressed events: one member of gzip, as large as its end says.
 * @throws RecordFormatError
 */
export function gunzipEvents(base64: string): Uint8Array {
  let events: Uint8Array | undefined;
  try {
    events = gunzipSync(Buffer.from(base64, "base64"), { maxOutputLength: MAX_UNCOMPRESSED_BYTES });
  } catch {
    // Too large, cut off or no gzip at all.
  }
  if (events?.length !== uncompressedBytes(base64))
    throw new RecordFormatError(`events is not gzip of at most ${MAX_UNCOMPRESSED_BYTES} bytes`);
  return events;
}

/** The size that compressed events say they have: known to be so once they were decompressed. */
export function uncompressedBytes(base64: string): number {
  // The last four bytes of base64 that ends in padding, or in none, are among the last eight characters.
  const end = Buffer.from(base64.slice(-8), "base64");
  return end.length < 4 ? 0 : end.readUInt32LE(end.length - 4);
}
