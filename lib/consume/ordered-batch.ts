import type { KinesisStreamRecord } from "aws-lambda";
import { RecordFormatError } from "../change/errors.ts";
import type { ChangeEventJson } from "../change/event.ts";
import { eventTexts } from "../change/event-texts.ts";
import { type ClaimRecord, parseRecord, RECORD_VERSION, type RecordRange } from "../change/record.ts";
import { readHeader } from "../change/record-header.ts";
import { partitionKey as partitionKeyOf } from "../change/topic.ts";
import { RecordNotSupportedError } from "./errors.ts";
import { parseExactJson } from "./json.ts";

/** One record of an invocation that can be read, or of which it is known what it holds. */
export interface BatchRecord {
  /** Its place in the invocation's records, which come in the order of their sequence numbers. */
  readonly index: number;
  readonly sequenceNumber: string;
  readonly shardId: string;
  readonly topic: string;
  readonly partition: number;
  readonly writer: number;
  /** None where `claimed` stands for one, or where they are `unreadable`. */
  readonly events: readonly ChangeEventJson[];
  /** The pointer to one event that was too large for the stream. */
  readonly claimed?: ClaimRecord;
  /** Its events cannot be read: which they are. */
  readonly unreadable?: UnreadableEvents;
  /** The text of an event, byte for byte as capture wrote it. */
  verbatim(event: number): string;
}

/** Events that cannot be read, and never will. */
export interface UnreadableEvents extends RecordRange {
  readonly partitionKey: string;
  readonly data: string;
  readonly error: RecordFormatError;
}

/** One record of which nothing is known: `error` says whether it never will (`RecordFormatError`). */
export interface UnreadableRecord {
  readonly index: number;
  readonly sequenceNumber: string;
  readonly shardId: string;
  readonly partitionKey: string;
  readonly data: string;
  readonly error: RecordFormatError | RecordNotSupportedError;
}

/** The records of one topic partition, in order. */
export interface Lane {
  readonly topic: string;
  readonly partition: number;
  readonly records: BatchRecord[];
}

/** Sorts the records of an invocation into topic partitions; each keeps its order. */
export function orderedBatch(records: readonly KinesisStreamRecord[]): {
  lanes: Lane[];
  unreadable: UnreadableRecord[];
} {
  const lanes = new Map<string, Lane>();
  const unreadable: UnreadableRecord[] = [];
  for (const [index, record] of records.entries()) {
    const read = readRecord(record, index);
    if ("error" in read) {
      unreadable.push(read);
      continue;
    }
    const name = `${read.topic}/${read.partition}`;
    const lane = lanes.get(name);
    if (lane) lane.records.push(read);
    else lanes.set(name, { topic: read.topic, partition: read.partition, records: [read] });
  }
  return { lanes: [...lanes.values()], unreadable };
}

function readRecord(record: KinesisStreamRecord, index: number): BatchRecord | UnreadableRecord {
  const { sequenceNumber, partitionKey, data } = record.kinesis;
  // eventID is "shardId-000000000006:49590338271490256608559692538361571095921575989136588898"
  const place = { index, sequenceNumber, shardId: record.eventID.split(":")[0] ?? "" };
  let version: unknown;
  const parse = (text: string): unknown => {
    const value = parseExactJson(text);
    if (typeof value === "object" && value !== null && "v" in value) version ??= value.v;
    return value;
  };
  try {
    const parsed = parseRecord(Buffer.from(data, "base64"), parse);
    const { topic, partition, writer } = parsed;
    let texts: readonly string[] | undefined;
    const verbatim = (event: number) => {
      texts ??= eventTexts(Buffer.from(data, "base64"));
      return texts[event] as string;
    };
    const known = { ...place, topic, partition, writer, verbatim };
    if (parsed.kind === "claim") return { ...known, events: [], claimed: parsed };
    return { ...known, events: parsed.events };
  } catch (error) {
    if (typeof version === "number" && version > RECORD_VERSION) {
      return {
        ...place,
        partitionKey,
        data,
        error: new RecordNotSupportedError(`of format version ${version}`),
      };
    }
    if (error instanceof RecordFormatError) {
      return knownRecord(place, partitionKey, data, error) ?? { ...place, partitionKey, data, error };
    }
    if (error instanceof RecordNotSupportedError) return { ...place, partitionKey, data, error };
    throw error;
  }
}

/** A record whose events cannot be read, if its header can: one that fits the key it was written under. */
function knownRecord(
  place: Pick<BatchRecord, "index" | "sequenceNumber" | "shardId">,
  partitionKey: string,
  data: string,
  error: RecordFormatError,
): BatchRecord | undefined {
  const header = readHeader(Buffer.from(data, "base64"));
  if (header === undefined || partitionKeyOf(header.topic, header.partition) !== partitionKey)
    return undefined;
  const { topic, partition, writer, ...range } = header;
  const verbatim = () => {
    throw error;
  };
  const unreadable = { ...range, partitionKey, data, error };
  return { ...place, topic, partition, writer, events: [], unreadable, verbatim };
}
