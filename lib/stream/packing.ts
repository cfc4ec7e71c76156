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

/** How the events of one partition become the data of its records. Sizes are UTF-8 bytes. */
export interface RecordFormat {
  /** What closes an open event whose predecessor in the partition is `after`. */
  tail(after: PositionText | null): string;
  /** Most events of a record. */
  readonly maxEvents: number;
  /** What a record takes beside its events; each event but the first takes one more, for the comma. */
  readonly overheadBytes: number;
  /** The data of a record of these closed events. */
  data(events: readonly string[]): Buffer;
  /** The record that stands for an event by claim check. */
  claim(claim: ClaimCheck, position: PositionText, after: PositionText | null): string;
}

/** The format of a partition's records. Built once a partition: what does not change is made here. */
export function recordFormat(packing: Packing, header: RecordHeader): RecordFormat {
  const claim: RecordFormat["claim"] = (...pointer) => claimRecord(header, ...pointer);
  if (packing === "none") {
    return {
      tail: (after) => unpackedEventTail(after, header),
      maxEvents: 1,
      overheadBytes: 0,
      data: ([event]) => Buffer.from(event as string),
      claim,
    };
  }
  const head = recordHead(header);
  return {
    tail: eventTail,
    maxEvents: Number.POSITIVE_INFINITY,
    overheadBytes: Buffer.byteLength(head) + RECORD_TAIL.length,
    data: (events) => Buffer.from(`${head}${events.join(",")}${RECORD_TAIL}`),
    claim,
  };
}
