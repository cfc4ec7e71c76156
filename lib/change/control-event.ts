import * as z from "zod/mini";
import type { ChangeEventJson } from "./event.ts";
import type { PositionText } from "./position.ts";
import { RecordFormatError } from "./record-errors.ts";

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
  /** Whether consumers that keep keys are to remove what stands below `startPosition`. */
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

/** Whether an event is a control event of ours, and no change: it moves fences, handlers never see it. */
export function isControlEvent(event: Pick<ChangeEventJson, "op" | "message">): boolean {
  return event.op === "m" && event.message?.prefix.startsWith(OWN_PREFIX) === true;
}

const backfillEnd = z.object({
  table: z.string(),
  run: z.int().check(z.gte(1)),
  startPosition: z.string().check(z.regex(/^[0-9A-F]{24}[0-9]{10}$/)),
  sweep: z.boolean(),
  consumer: z.exactOptional(z.string()),
});

/**
 * What a control event says of the end of a backfill; undefined where it is another one, or a change.
 * @throws RecordFormatError
 */
export function readBackfillEnd(event: Pick<ChangeEventJson, "op" | "message">): BackfillEnd | undefined {
  const { op, message } = event;
  if (op !== "m" || message?.prefix !== BACKFILL_END) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(Buffer.from(message.content, "base64").toString());
  } catch {
    throw new RecordFormatError(`the content of ${BACKFILL_END} is not JSON`);
  }
  const { success, data, error } = backfillEnd.safeParse(content);
  if (success) return data;
  const [issue] = error.issues;
  throw new RecordFormatError(`${BACKFILL_END}: ${issue?.path.join(".")}: ${issue?.message}`);
}
