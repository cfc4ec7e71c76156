import type { ChangeEventJson } from "./event.ts";
import type { PositionText } from "./position.ts";
import { RecordFormatError } from "./record-errors.ts";
import { fittingJson, flag, objectOf, optional, position, text, wholeFrom } from "./shape.ts";

/** Prefix of the logical messages that are ours: in the log, and as control events in a table's topic. */
export const OWN_PREFIX = "tributary.";

/** A backfill of the table has ended: everything it read stands before this event. Content: `BackfillEnd`. */
export const BACKFILL_END = `${OWN_PREFIX}backfill-end`;

/** Somebody wants to know when consumers have passed this point. Content: `Probe`. */
export const PROBE = `${OWN_PREFIX}probe`;

/** A change that stood here cannot become an event and was put aside. Content: `PutAside`. */
export const PUT_ASIDE = `${OWN_PREFIX}put-aside`;

/** The content of a `PUT_ASIDE`. */
export interface PutAside {
  /** As `schema.table`, quoted where the names need it. */
  readonly table: string;
  readonly position: PositionText;
  /** Code of the error that kept it from becoming an event. */
  readonly code: string;
}

/** The content of a `BACKFILL_END`. */
export interface BackfillEnd {
  /** As `schema.table`, quoted where the names need it. */
  readonly table: string;
  /** Counts the table's backfills. */
  readonly run: number;
  /** Rows that a consumer holds below this position when the event comes were gone from the source when the backfill began. */
  readonly startPosition: PositionText;
  /** True if consumers that keep keys are to remove what stands below `startPosition`. */
  readonly sweep: boolean;
  /** Only this consumer is meant; left out: all. */
  readonly consumer?: string;
}

/** The content of a `PROBE`, in the log and in the topic. */
export interface Probe {
  readonly slot: string;
  /** As `schema.table`, quoted where the names need it. */
  readonly table: string;
  readonly id: string;
}

/** Returns true for a control event of ours, which is no change: it moves fences, and handlers never see it. */
export function isControlEvent(event: Pick<ChangeEventJson, "op" | "message">): boolean {
  return event.op === "m" && event.message?.prefix.startsWith(OWN_PREFIX) === true;
}

const backfillEnd = objectOf({
  ...{ table: text, run: wholeFrom(1), startPosition: position, sweep: flag, consumer: optional(text) },
});

/**
 * Reads the end of a backfill out of a control event; undefined for another control event, or a change.
 * @throws RecordFormatError
 */
export function readBackfillEnd(event: Pick<ChangeEventJson, "op" | "message">): BackfillEnd | undefined {
  const { op, message } = event;
  if (op !== "m" || message?.prefix !== BACKFILL_END) return undefined;
  const refuse = (path: string, problem: string) =>
    new RecordFormatError(`${BACKFILL_END}: ${path}: ${problem}`);
  return fittingJson(backfillEnd, Buffer.from(message.content, "base64").toString(), refuse) as BackfillEnd;
}
