import type { ClaimCheck } from "../change/claim-check.ts";
import { POSITION_BYTES } from "../change/encoded-change.ts";
import { type PositionText, START_OF_HISTORY } from "../change/position.ts";
import {
  claimRecord,
  compressedHead,
  eventTail,
  RECORD_TAIL,
  type RecordHeader,
  type RecordRange,
  recordHead,
  unpackedEventTail,
} from "../change/record.ts";

/**
 * `batch`: many events of a partition in one record. `gzip`: the same, compressed where that saves. `none`: one event a record,
 * for Flink and Firehose.
 */
export type Packing = "batch" | "gzip" | "none";

/** Turns the events of one partition into the data of its records, as UTF-8. */
export interface RecordFormat {
  /** Start of a record, in front of its events: a text made anew for each record. */
  readonly head: ((range: RecordRange) => string) | undefined;
  headBytes(first: boolean): number;
  /** End of a record, behind its events; between them stand commas. */
  readonly tail: Buffer;
  /** Start of compressed events; undefined: they never are compressed. */
  readonly compressedHead: ((range: RecordRange) => string) | undefined;
  /** Closes an open event that has no predecessor in the partition. */
  readonly firstClosing: Buffer;
  /** Closes an open event: this, the predecessor's position, `closing`. */
  readonly after: Buffer;
  readonly closing: Buffer;
  /** Places in `closing` and `firstClosing` where the event's own position is to be written. */
  readonly ownPosition: { readonly closing: readonly number[]; readonly firstClosing: readonly number[] };
  /** Most events of a record. */
  readonly maxEvents: number;
  /** The record that stands for an event by claim check. */
  claim(claim: ClaimCheck, position: PositionText, after: PositionText | null): string;
}

/** Stands for the predecessor's position: no topic holds a zero byte. */
const PLACE = "\0";
/** Stands for the event's own position; as long as one. */
const OWN_PLACE = "\u0001".repeat(POSITION_BYTES);
const NOTHING = Buffer.alloc(0);

/** The same for all partitions: there may be tens of thousands. */
const PACKED = {
  tail: Buffer.from(RECORD_TAIL),
  ...closings(eventTail),
  maxEvents: Number.POSITIVE_INFINITY,
};

/** The format of a partition's records. Built once a partition: what does not change is made here. */
export function recordFormat(packing: Packing, header: RecordHeader): RecordFormat {
  const claim: RecordFormat["claim"] = (...pointer) => claimRecord(header, ...pointer);
  if (packing !== "none") {
    const bytes = (after: PositionText | null) =>
      Buffer.byteLength(recordHead(header, { first: START_OF_HISTORY, last: START_OF_HISTORY, after }));
    const [firstBytes, laterBytes] = [bytes(null), bytes(START_OF_HISTORY)];
    return {
      ...PACKED,
      head: (range) => recordHead(header, range),
      headBytes: (first) => (first ? firstBytes : laterBytes),
      compressedHead: packing === "gzip" ? (range) => compressedHead(header, range) : undefined,
      claim,
    };
  }
  const unpacked = closings((after) => unpackedEventTail(after, header, OWN_PLACE));
  return {
    ...unpacked,
    head: undefined,
    headBytes: () => 0,
    tail: NOTHING,
    compressedHead: undefined,
    maxEvents: 1,
    claim,
  };
}

/** Taken apart around a position, so that the format is written down in one place alone. */
function closings(tail: (after: PositionText | null) => string) {
  const [after = "", behind = ""] = tail(PLACE).split(PLACE);
  const [firstClosing, closing] = [Buffer.from(tail(null)), Buffer.from(behind)];
  return {
    firstClosing,
    after: Buffer.from(after),
    closing,
    ownPosition: { closing: placesOf(closing), firstClosing: placesOf(firstClosing) },
  };
}

/** Offsets at which the event's own position is to stand. */
function placesOf(text: Buffer): number[] {
  const places: number[] = [];
  for (let at = text.indexOf(OWN_PLACE); at >= 0; at = text.indexOf(OWN_PLACE, at + POSITION_BYTES))
    places.push(at);
  return places;
}
