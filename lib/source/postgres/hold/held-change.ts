import * as z from "zod";
import { formatOrdinal, type PositionText } from "../../../change/position.ts";
import type { Topic } from "../../../change/topic.ts";
import type { SourceChange } from "../../change-source.ts";
import type { Begin, Relation } from "../pgoutput/messages.ts";

/** A change of a held topic that was decoded: its event, as it would have gone into the stream. */
export interface HeldEvent extends Omit<SourceChange, "kind"> {
  readonly kind: "event";
}

/** A change that could not become an event: the server's message, and all that decoding it once more needs. */
export interface HeldMessage {
  readonly kind: "message";
  readonly topic: Topic;
  /** Of the last event that it makes. */
  readonly position: PositionText;
  /** Where it was made, for people and metrics: `public.orders`. */
  readonly table: string;
  readonly relation: Relation;
  readonly begin: Begin;
  /** Ordinals of its transaction that were counted before it (rule 1). */
  readonly ordinal: number;
  readonly lsn: bigint;
  /** The pgoutput message. */
  readonly payload: Buffer;
}

/** A change that waits for its topic's release. */
export type HeldChange = HeldEvent | HeldMessage;

/** Characters of a position that all changes of a transaction share. */
const COMMIT_PREFIX = 24;

/** Where an update stands that can be decoded another time: at the first of its two ordinals. */
export function firstPosition(change: HeldChange): PositionText {
  if (change.kind === "event") return change.position;
  return change.position.slice(0, COMMIT_PREFIX) + formatOrdinal(change.ordinal + 1);
}

/** One line of a segment. */
export function formatHeldChange(change: HeldChange): string {
  if (change.kind === "event") return JSON.stringify(change);
  const { begin, lsn, payload, ...rest } = change;
  const { commitLsn, commitTime, xid } = begin;
  return JSON.stringify({
    ...rest,
    begin: { commitLsn: commitLsn.toString(), commitTime: commitTime.toString(), xid },
    lsn: lsn.toString(),
    payload: payload.toString("base64"),
  });
}

const bigint = z.string().regex(/^\d+$/).transform(BigInt);
const place = {
  topic: z.object({ name: z.string(), partitions: z.int().positive() }),
  position: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/),
  table: z.string(),
};
const heldChange = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("event"), ...place, partition: z.int(), json: z.string() }),
  z.object({
    kind: z.literal("message"),
    ...place,
    relation: z.object({
      oid: z.int(),
      schema: z.string(),
      table: z.string(),
      identity: z.enum(["default", "nothing", "full", "index"]),
      columns: z.array(z.object({ key: z.boolean(), name: z.string(), type: z.int(), modifier: z.int() })),
      noName: z
        .object({ what: z.string(), shown: z.string(), encoding: z.string(), lsn: z.string() })
        .optional(),
    }),
    begin: z.object({
      commitLsn: bigint,
      commitTime: z
        .string()
        .regex(/^-?\d+$/)
        .transform(BigInt),
      xid: z.int(),
    }),
    ordinal: z.int(),
    lsn: bigint,
    payload: z.base64().transform((text) => Buffer.from(text, "base64")),
  }),
]);

/** The changes of a segment, in order. @throws SyntaxError, ZodError where it is none. */
export function parseSegment(bytes: Uint8Array): HeldChange[] {
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => heldChange.parse(JSON.parse(line)));
}
