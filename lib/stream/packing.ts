import type { PositionText } from "../change/position.ts";
import {
  type ClaimCheck,
  claimRecord,
  eventTail,
  RECORD_TAIL,
  type RecordHeader,
  recordHead,
  unpackedEventTail,
} from "../change/record.ts";

/** `batch`: many events of a partition in one record. `none`: one event a record, for Flink and Firehose. */
export type Packing = "batch" | "none";

/** How the events of one partition become the data of its records, as UTF-8. */
export interface RecordFormat {
  /** What stands before the events of a record, and behind them; between them stand commas. */
  readonly head: Buffer;
  readonly tail: Buffer;
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

/** The format of a partition's records. Built once a partition: what does not change is made here. */
export function recordFormat(packing: Packing, header: RecordHeader): RecordFormat {
  const packed = packing === "batch";
  const tail = (after: PositionText | null) => (packed ? eventTail(after) : unpackedEventTail(after, header));
  // Taken apart around a position, so that the format is written down in one place alone.
  const [after = "", closing = ""] = tail(PLACE).split(PLACE);
  return {
    head: Buffer.from(packed ? recordHead(header) : ""),
    tail: Buffer.from(packed ? RECORD_TAIL : ""),
    firstClosing: Buffer.from(tail(null)),
    after: Buffer.from(after),
    closing: Buffer.from(closing),
    maxEvents: packed ? Number.POSITIVE_INFINITY : 1,
    claim: (...pointer) => claimRecord(header, ...pointer),
  };
}

/** Stands for a position: no topic holds a zero byte. */
const PLACE = "\0";
