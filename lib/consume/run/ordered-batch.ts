import type { KinesisStreamRecord } from "aws-lambda";
import type { ChangeEventJson } from "../../change/event.ts";
import { eventTexts } from "../../change/event-texts.ts";
import {
  compressedEvents,
  MAX_UNCOMPRESSED_BYTES,
  openRecord,
  parseRecord,
  RECORD_TAIL,
  RECORD_VERSION,
  uncompressedBytes,
} from "../../change/record.ts";
import { RecordFormatError } from "../../change/record-errors.ts";
import { HEADER_BYTES, type KnownRecord, readHeader } from "../../change/record-header.ts";
import { partitionKey as partitionKeyOf } from "../../change/topic.ts";
import { RecordNotSupportedError } from "../consume-errors.ts";
import type { BatchRecord, UnreadableRecord } from "./batch-record.ts";
import { parseExactJson } from "./json.ts";
import { rangeOf, UnreadRecord } from "./unread-record.ts";

/** The records of one topic partition, in order. */
export interface PartitionLane {
  readonly topic: string;
  readonly partition: number;
  readonly records: BatchRecord[];
}

/** `eventID` is "shardId-000000000006:49590338271490256608559692538361571095921575989136588898". */
export function shardIdOf({ eventID }: KinesisStreamRecord): string {
  const end = eventID.indexOf(":");
  return end < 0 ? eventID : eventID.slice(0, end);
}

/** Sorts the records of an invocation into topic partitions; each keeps its order. */
export function orderedBatch(records: readonly KinesisStreamRecord[]): {
  lanes: PartitionLane[];
  unreadable: UnreadableRecord[];
} {
  // By topic, then by partition: a name made of both for each of so many records would cost more than the look-ups.
  const topics = new Map<string, Map<number, PartitionLane>>();
  const lanes: PartitionLane[] = [];
  const laneOf = (topic: string, partition: number): PartitionLane => {
    const known = topics.get(topic) ?? new Map<number, PartitionLane>();
    topics.set(topic, known);
    const lane = known.get(partition) ?? { topic, partition, records: [] };
    if (lane.records.length === 0) {
      known.set(partition, lane);
      lanes.push(lane);
    }
    return lane;
  };
  const unreadable: UnreadableRecord[] = [];
  for (const [index, record] of records.entries()) {
    const read = readRecord(record, index);
    if ("error" in read) unreadable.push(read);
    else laneOf(read.topic, read.partition).records.push(read);
  }
  return { lanes, unreadable };
}

function readRecord(record: KinesisStreamRecord, index: number): BatchRecord | UnreadableRecord {
  const { sequenceNumber, partitionKey, data, approximateArrivalTimestamp } = record.kinesis;
  const arrivedMs = approximateArrivalTimestamp * 1000;
  const place = { index, sequenceNumber, shardId: shardIdOf(record), arrivedMs };
  // Of the few that need it: a batch may have ten thousand records.
  const which = () => `${partitionKey}, ${place.shardId}, sequence number ${sequenceNumber}`;
  let outer: { readonly v?: unknown; readonly encoding?: unknown } | undefined;
  const parse = (text: string): unknown => {
    const value = parseExactJson(text);
    if (typeof value === "object" && value !== null) outer ??= value;
    return value;
  };
  const plain = plainHeaderOf(data, partitionKey);
  if (plain) {
    const whole = { partitionKey, data, which };
    return new UnreadRecord(place, plain, plain, whole, () => eventsBehind(plain, data));
  }
  try {
    const bytes = Buffer.from(data, "base64");
    const parsed = openRecord(bytes, parse);
    if (parsed.kind === "compressed") {
      // Where its header does not tell what it holds, its events do: once, and then again in their turn.
      const header = headerOf(bytes, partitionKey);
      const range = header ?? rangeOf(compressedEvents(parsed.compressed, parse));
      const { compressed } = parsed;
      const read = () => compressedEvents(compressed, parseExactJson);
      const size = Math.min(uncompressedBytes(compressed), MAX_UNCOMPRESSED_BYTES);
      return new UnreadRecord(place, parsed, range, { partitionKey, data, which }, read, size);
    }
    const { topic, partition, writer } = parsed;
    let texts: readonly string[] | undefined;
    const verbatim = (event: number) => {
      texts ??= eventTexts(Buffer.from(data, "base64"));
      return texts[event] as string;
    };
    if (parsed.kind === "claim")
      return { ...place, topic, partition, writer, verbatim, events: [], claimed: parsed };
    const { shardId } = place;
    // Without a copy of it: a batch may have ten thousand records.
    return {
      index,
      sequenceNumber,
      shardId,
      arrivedMs,
      topic,
      partition,
      writer,
      verbatim,
      events: parsed.events,
    };
  } catch (error) {
    if (!(error instanceof RecordFormatError)) throw error;
    const newer = ofNewerVersion(outer);
    if (newer !== undefined) {
      return { ...place, partitionKey, data, error: new RecordNotSupportedError(newer, which()) };
    }
    const named = new RecordFormatError(error.problem, which());
    return knownRecord(place, partitionKey, data, named) ?? { ...place, partitionKey, data, error: named };
  }
}

/** Returns what is known of a record that a newer library wrote; it is not given up, but waits. */
function ofNewerVersion(
  outer: { readonly v?: unknown; readonly encoding?: unknown } | undefined,
): string | undefined {
  const { v, encoding } = outer ?? {};
  if (typeof v === "number" && v > RECORD_VERSION) return `of format version ${v}`;
  const isNew = v === RECORD_VERSION && typeof encoding === "string" && encoding !== "gzip";
  return isNew ? "of an unknown encoding" : undefined;
}

/** A record whose events cannot be read, if its header can: one that fits the key it was written under. */
function knownRecord(
  place: Pick<BatchRecord, "index" | "sequenceNumber" | "shardId" | "arrivedMs">,
  partitionKey: string,
  data: string,
  error: RecordFormatError,
): BatchRecord | undefined {
  const header = headerOf(Buffer.from(data, "base64"), partitionKey);
  if (header === undefined) return undefined;
  const { topic, partition, writer, ...range } = header;
  const verbatim = () => {
    throw error;
  };
  const unreadable = { ...range, partitionKey, data, error };
  return { ...place, topic, partition, writer, events: [], unreadable, verbatim };
}

/** Letters of base64 from which on a record's events are read in their turn: for a few of them that would cost more than it saves. */
const UNREAD_FROM = 16 * 1024;

/**
 * Reads the header of a record whose events, as plain JSON, can wait for their turn. Undefined where something else stands
 * behind them: that may say what the record is, as an encoding does.
 */
function plainHeaderOf(data: string, partitionKey: string): KnownRecord | undefined {
  if (data.length < UNREAD_FROM) return undefined;
  if (!Buffer.from(data.slice(-8), "base64").toString().endsWith(RECORD_TAIL)) return undefined;
  // Four letters are three bytes.
  return headerOf(Buffer.from(data.slice(0, HEADER_BYTES), "base64"), partitionKey, true);
}

/**
 * The events behind a header that was read alone; undefined where the record as a whole says otherwise: of a name that comes twice
 * the last one counts.
 * @throws RecordFormatError
 */
function eventsBehind(
  { topic, partition, writer }: KnownRecord,
  data: string,
): readonly ChangeEventJson[] | undefined {
  const record = parseRecord(Buffer.from(data, "base64"), parseExactJson);
  const isOfHeader = record.topic === topic && record.partition === partition && record.writer === writer;
  return record.kind === "events" && isOfHeader ? record.events : undefined;
}

/** Reads a record's header, if it can be read and fits the key that the record was written under. */
function headerOf(data: Uint8Array, partitionKey: string, isPlain?: boolean): KnownRecord | undefined {
  const header = readHeader(data, isPlain);
  const fits = header && partitionKeyOf(header.topic, header.partition) === partitionKey;
  return fits ? header : undefined;
}
