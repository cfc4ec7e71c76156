import { jsonMembers } from "./json-members.ts";
import { isPosition } from "./position.ts";
import { RECORD_VERSION, type RecordHeader, type RecordRange } from "./record.ts";

/** The facts of a record that are known without its events. */
export type KnownRecord = RecordHeader & RecordRange;

const POSITION = '"[0-9A-F]{24}[0-9]{10}"';
/** The end of an unpacked record: see `unpackedEventTail`. */
const UNPACKED_END = new RegExp(
  `,("after":(?:null|${POSITION}),"topic":"(?:[^"\\\\]|\\\\.)*","partition":\\d+,"writer":\\d+,"first":${POSITION},"last":${POSITION})\\}\\}$`,
);
/** Longer than any header: a topic is part of a partition key of 256 characters. */
export const HEADER_BYTES = 8 * 1024;

/**
 * Reads what stands around a record's events, whatever those hold: they need not be JSON, UTF-8 or gzip. Undefined where
 * the header itself is not as capture writes it, or is one of an earlier version, which did not say the range; then
 * nothing is known of the record. With `isPlain` also of any but a packed record whose events stand in it as JSON: then its first
 * bytes are enough.
 */
export function readHeader(data: Uint8Array, isPlain = false): KnownRecord | undefined {
  const isUnpacked = text(data.subarray(0, 6)) === '{"op":';
  try {
    const members = isUnpacked ? unpackedHeader(data) : packedHeader(data);
    return isPlain && (members?.events !== "[" || "encoding" in members) ? undefined : known(members);
  } catch {
    // Not JSON up to the events.
    return undefined;
  }
}

function packedHeader(data: Uint8Array): Partial<Record<string, unknown>> | undefined {
  const head = text(data.subarray(0, HEADER_BYTES));
  if (head[0] !== "{") return undefined;
  const members: Record<string, unknown> = {};
  for (const { name, valueStart, end } of jsonMembers(head, 0, "events", "claim")) {
    const isEnd = name === "events" || name === "claim";
    members[name] = isEnd ? head[valueStart] : JSON.parse(head.slice(valueStart, end));
    if (isEnd) return members.v === RECORD_VERSION ? members : undefined;
  }
  return undefined;
}

function unpackedHeader(data: Uint8Array): Partial<Record<string, unknown>> | undefined {
  const end = UNPACKED_END.exec(text(data.subarray(-HEADER_BYTES)))?.[1];
  return end === undefined ? undefined : JSON.parse(`{${end}}`);
}

function known(members: Partial<Record<string, unknown>> | undefined): KnownRecord | undefined {
  const { topic, partition, writer, first, last, after } = members ?? {};
  if (typeof topic !== "string" || topic === "" || !isCount(partition) || !isCount(writer)) return undefined;
  if (!isPositionText(first) || !isPositionText(last) || first > last) return undefined;
  if (after !== null && !(isPositionText(after) && after < first)) return undefined;
  return { topic, partition, writer, first, last, after };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isPositionText(value: unknown): value is string {
  return typeof value === "string" && isPosition(value);
}

/** Decodes UTF-8. Other bytes become U+FFFD: a topic that held them does not fit its partition key. */
function text(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
