import type { KinesisStreamEvent, KinesisStreamRecord } from "aws-lambda";
import { BACKFILL_END, type BackfillEnd } from "../../../lib/change/control-event.ts";
import type { ChangeEventJson, OperationCode, WireRow } from "../../../lib/change/event.ts";
import { formatLsn } from "../../../lib/change/lsn.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { eventTail, RECORD_TAIL, recordHead } from "../../../lib/change/record.ts";
import { kinesisRecord as madeRecord } from "../../../lib/testing/handler/kinesis-record.ts";

/** One change to write; positions are small: (epoch, commit, ordinal). */
export interface Change {
  readonly op?: OperationCode;
  readonly at: number;
  readonly epoch?: number;
  readonly ordinal?: number;
  /** The predecessor's `at`, or a whole position; null after a writer start. */
  readonly after: number | string | null;
  readonly row?: WireRow;
  readonly before?: WireRow;
  readonly table?: string;
  /** The message of an `m`. */
  readonly message?: { readonly prefix: string; readonly content: string };
  readonly unchanged?: readonly string[];
  /** Columns of the row as JSON text, where the digits count. */
  readonly rowJson?: string;
  readonly source?: object;
  /** More members of the event. */
  readonly more?: Partial<ChangeEventJson>;
}

export const TOPIC = "shop.public.orders";

/** Position text of a small change. */
export function at(commit: number, { epoch = 1, ordinal = 1 } = {}): string {
  return formatPosition({ epoch, commitLsn: BigInt(commit), ordinal });
}

/** The event as capture writes it. */
export function eventJson(change: Change): string {
  const { op = "c", epoch = 1, ordinal = 1, table = "orders", row = { id: String(change.at) } } = change;
  const after = typeof change.after === "number" ? at(change.after, { epoch }) : change.after;
  const isOld = op === "d";
  const rowText = change.rowJson ?? JSON.stringify(row);
  const isRow = op !== "t" && op !== "m";
  const head: Partial<ChangeEventJson> = {
    op,
    ...change.more,
    ...(change.unchanged ? { unchanged: change.unchanged } : {}),
    ...(op === "m"
      ? { message: { prefix: "app", content: "aGk=", transactional: true, ...change.message } }
      : {}),
  };
  const source = {
    connector: "postgresql",
    name: "shop",
    db: "shop",
    schema: "public",
    table,
    txId: "1",
    lsn: formatLsn(BigInt(change.at)),
    commitLsn: formatLsn(BigInt(change.at)),
    ordinal,
    epoch,
    ts_ms: Date.now() - 5,
    snapshot: "false",
    schemaVersion: "1",
    key: ["id"],
    ...change.source,
  };
  const before = isOld && isRow ? rowText : change.before ? JSON.stringify(change.before) : "null";
  const open = `${JSON.stringify(head).slice(0, -1)},"before":${before},"after":${!isOld && isRow ? rowText : "null"},"ts_ms":1`;
  return `${open},"source":${JSON.stringify(source).slice(0, -1)}${eventTail(after)}`;
}

/** A packed record's data. */
export function recordJson(
  changes: readonly Change[],
  { topic = TOPIC, partition = 0, writer = 1 } = {},
): string {
  return recordHead({ topic, partition, writer }) + changes.map(eventJson).join(",") + RECORD_TAIL;
}

/** The message of the control event that ends a backfill of `public.orders`, which began at a position. */
export function backfillEnd(
  startPosition: string,
  content: Partial<BackfillEnd> = {},
): { prefix: string; content: string } {
  const end: BackfillEnd = { table: "public.orders", run: 1, startPosition, sweep: true, ...content };
  return { prefix: BACKFILL_END, content: Buffer.from(JSON.stringify(end)).toString("base64") };
}

/** A record as Lambda hands it over. */
export function kinesisRecord(data: string | Uint8Array, partitionKey = `${TOPIC}/0`): KinesisStreamRecord {
  return madeRecord(data, partitionKey);
}

/** A packed record of changes, as Lambda hands it over. */
export function packed(
  changes: readonly Change[],
  place: { topic?: string; partition?: number; writer?: number } = {},
): KinesisStreamRecord {
  return kinesisRecord(recordJson(changes, place), `${place.topic ?? TOPIC}/${place.partition ?? 0}`);
}

/** A run of changes with `after` chained: `from` … `to`. */
export function chain(
  from: number,
  to: number,
  after: number | null = from === 1 ? null : from - 1,
): Change[] {
  const changes: Change[] = [];
  for (let i = from; i <= to; i++) changes.push({ at: i, after: i === from ? after : i - 1 });
  return changes;
}

export function invocationOf(...records: KinesisStreamRecord[]): KinesisStreamEvent {
  return { Records: records };
}
