import * as z from "zod";
import type { SourceChange } from "../../../change/change-stream.ts";
import { formatOrdinal, type PositionText } from "../../../change/position.ts";
import type { Topic } from "../../../change/topic.ts";
import type { Begin, Relation } from "../decode/pgoutput/messages.ts";

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
  /** The table of the change, for people and metrics: `public.orders`. */
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

/** Returns the position of an update that can be decoded another time: the first of its two ordinals. */
export function firstPosition(change: HeldChange): PositionText {
  if (change.kind === "event") return change.position;
  return change.position.slice(0, COMMIT_PREFIX) + formatOrdinal(change.ordinal + 1);
}

/** From so many bytes on a text or a message stands behind its line as it is: as JSON it may pass what a string can be. */
const RAW_BYTES = 1024 * 1024;
const NEWLINE = Buffer.from("\n");

/** A segment: a line of JSON for each change, and behind it, where `bytes` says so, its text or message. */
export function formatSegment(changes: readonly HeldChange[]): Buffer {
  const parts: Buffer[] = [];
  for (const change of changes) {
    const raw = rawOf(change);
    parts.push(Buffer.from(JSON.stringify(factsOf(change, raw))), NEWLINE);
    if (raw) parts.push(raw, NEWLINE);
  }
  return Buffer.concat(parts);
}

function rawOf(change: HeldChange): Buffer | undefined {
  if (change.kind === "message") return change.payload.length >= RAW_BYTES ? change.payload : undefined;
  return change.json.length >= RAW_BYTES ? Buffer.from(change.json) : undefined;
}

function factsOf(change: HeldChange, raw: Buffer | undefined): object {
  if (change.kind === "event") {
    const { json, ...rest } = change;
    return raw ? { ...rest, bytes: raw.length } : change;
  }
  const { begin, lsn, payload, ...rest } = change;
  const { commitLsn, commitTime, xid } = begin;
  return {
    ...rest,
    begin: { commitLsn: commitLsn.toString(), commitTime: commitTime.toString(), xid },
    lsn: lsn.toString(),
    ...(raw ? { bytes: raw.length } : { payload: payload.toString("base64") }),
  };
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
    payload: z.union([
      z.custom<Buffer>(Buffer.isBuffer),
      z.base64().transform((text) => Buffer.from(text, "base64")),
    ]),
  }),
]);

const facts = z.looseObject({ kind: z.string(), bytes: z.int().nonnegative().optional() });

/** The changes of a segment, in order. @throws SyntaxError, ZodError where it is none. */
export function parseSegment(bytes: Uint8Array): HeldChange[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const changes: HeldChange[] = [];
  for (let at = 0; at < buffer.length; ) {
    const newline = buffer.indexOf(NEWLINE, at);
    const end = newline === -1 ? buffer.length : newline;
    const line = buffer.toString("utf8", at, end);
    at = end + 1;
    if (line === "") continue;
    const { bytes: size, ...rest } = facts.parse(JSON.parse(line));
    if (size === undefined) changes.push(heldChange.parse(rest));
    else {
      const raw = buffer.subarray(at, at + size);
      if (raw.length < size) throw new SyntaxError(`${size} bytes are to follow, and ${raw.length} do`);
      at += size + NEWLINE.length;
      const content = rest.kind === "event" ? { json: raw.toString("utf8") } : { payload: raw };
      changes.push(heldChange.parse({ ...rest, ...content }));
    }
  }
  return changes;
}
