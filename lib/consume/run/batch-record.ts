import type { ChangeEventJson } from "../../change/event.ts";
import type { ClaimRecord, RecordRange } from "../../change/record.ts";
import type { RecordFormatError } from "../../change/record-errors.ts";
import type { RecordNotSupportedError } from "../consume-errors.ts";

/** One record of an invocation that can be read, or of which it is known what it holds. */
export interface BatchRecord {
  /** Its place in the invocation's records, which come in the order of their sequence numbers. */
  readonly index: number;
  readonly sequenceNumber: string;
  readonly shardId: string;
  /** Time of its arrival in the stream, in milliseconds since 1970. */
  readonly arrivedMs?: number;
  readonly topic: string;
  readonly partition: number;
  readonly writer: number;
  /**
   * None where `claimed` stands for one, or where they are `unreadable`. Of a record with a `range` they are made when they
   * are asked for, may turn out to be unreadable then, and take memory until `close`.
   */
  readonly events: readonly ChangeEventJson[];
  /** The pointer to one event that was too large for the stream. */
  readonly claimed?: ClaimRecord;
  /** Its events cannot be read: which they are. */
  readonly unreadable?: UnreadableEvents | undefined;
  /** Range of the events that it holds, where they are not there yet. */
  readonly range?: RecordRange;
  /** Their size in bytes, where they are compressed. */
  readonly bytes?: number | undefined;
  close?(): void;
  /** Nothing is known of it but its place, and it must wait: why. */
  readonly barred?: UnreadableRecord["error"];
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
