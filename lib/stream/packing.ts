import type { PositionText } from "../change/position.ts";
import {
  type ClaimCheck,
  claimRecord,
  compressedHead,
  eventTail,
  RECORD_TAIL,
  type RecordHeader,
  recordHead,
  unpackedEventTail,
} from "../change/record.ts";

/**
 * `batch`: many events of a partition in one record. `gzip`: the same, compressed where that saves. `none`: one event a record,
 * for Flink and Firehose.
 */
export type Packing = "batch" | "gzip" | "none";

/** How the events of one partition become the data of its records, as UTF-8. */
export interface RecordFormat {
  /** What stands before the events of a record, and behind them; between them stand commas. */
  readonly head: Buffer;
  readonly tail: Buffer;
  /** What stands before compressed events; undefined: they never are. */
  readonly compressedHead: Buffer | undefined;
  /** What closes an open event that has no predecessor in the partition. */
  readonly firstClosing: Buffer;
  /** What closes an open event: this, the predecessor's position, `closing`. */
  readonly after: Buffer;
  readonly closing: Buffer;
  /** Most events of a record. */
  readonly maxEvents: number;
  /** The record that stands for an event by claim check. */
  claim(claim: ClaimCheck, position: PositionText, after: PositionText | null): string;
}

/** Stands for a position: no topic holds a zero byte. */
const PLACE = "\0";
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
    const compressed = packing === "gzip" ? Buffer.from(compressedHead(header)) : undefined;
    return { ...PACKED, head: Buffer.from(recordHead(header)), compressedHead: compressed, claim };
  }
  const unpacked = closings((after) => unpackedEventTail(after, header));
  return { ...unpacked, head: NOTHING, tail: NOTHING, compressedHead: undefined, maxEvents: 1, claim };
}

/** Taken apart around a position, so that the format is written down in one place alone. */
function closings(tail: (after: PositionText | null) => string) {
  const [after = "", closing = ""] = tail(PLACE).split(PLACE);
  return {
    firstClosing: Buffer.from(tail(null)),
    after: Buffer.from(after),
    closing: Buffer.from(closing),
  };
}
