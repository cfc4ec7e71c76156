import type { KinesisStreamEvent } from "aws-lambda";
import type { OperationCode } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import { eventTail, RECORD_TAIL, recordHead } from "../../change/record.ts";
import { partitionKey } from "../../change/topic.ts";
import type { EventFacts, LogicalMessage } from "../../consume/run/event.ts";
import { kinesisRecord } from "./kinesis-record.ts";

/** An event of `changeEvent`, of whatever operation and row. */
export interface RecordedEvent extends EventFacts {
  readonly op: OperationCode;
  readonly before: unknown;
  readonly after: unknown;
  readonly message: LogicalMessage | undefined;
}

/** Settings of the records that events become. */
export interface KinesisEventOptions {
  /** Generation of the capture task that wrote them; default 1. */
  readonly writer?: number;
  /** Events in a record at most; default: all of a partition in one. */
  readonly eventsPerRecord?: number;
}

/**
 * Returns a Lambda event whose Kinesis records hold events as capture writes them: packed, a record a topic partition, each
 * event naming its predecessor. An event that does not stand behind the one before it in its partition comes in a record of its
 * own, as capture repeats it after a restart.
 *
 * @example
 * const { batchItemFailures } = await handler(kinesisEvent([placed, paid]), { getRemainingTimeInMillis: () => 60_000 });
 */
export function kinesisEvent(
  events: readonly RecordedEvent[],
  { writer = 1, eventsPerRecord = Number.POSITIVE_INFINITY }: KinesisEventOptions = {},
): KinesisStreamEvent {
  const records: Unsealed[] = [];
  const open = new Map<string, Unsealed>();
  for (const event of events) {
    const key = partitionKey(event.topic, event.partition);
    let record = open.get(key);
    if (record && event.position <= record.last) record = undefined;
    const after = record?.last ?? null;
    if (!record || record.events.length >= eventsPerRecord) {
      record = { key, event, after, events: [], last: event.position };
      open.set(key, record);
      records.push(record);
    }
    record.events.push(eventText(event, after));
    record.last = event.position;
  }
  return { Records: records.map((record) => kinesisRecord(recordText(record, writer), record.key)) };
}

interface Unsealed {
  readonly key: string;
  /** The first. */
  readonly event: RecordedEvent;
  readonly after: PositionText | null;
  readonly events: string[];
  last: PositionText;
}

function recordText({ event, after, events, last }: Unsealed, writer: number): string {
  const { topic, partition, position: first } = event;
  return `${recordHead({ topic, partition, writer }, { first, last, after })}${events.join(",")}${RECORD_TAIL}`;
}

function eventText(event: RecordedEvent, after: PositionText | null): string {
  const { op, before, message, unchanged, omitted, jsonNull, jsonNullBefore } = event;
  const { after: _, ...source } = event.source;
  const some = <T>(list: readonly T[]) => (list.length > 0 ? list : undefined);
  const json = JSON.stringify(
    {
      op,
      before,
      after: event.after,
      unchanged: some(unchanged),
      jsonNull: some(jsonNull),
      jsonNullBefore: some(jsonNullBefore),
      omitted: some(omitted),
      message: message && { ...message, content: Buffer.from(message.content).toString("base64") },
      ts_ms: source.ts_ms,
      source,
    },
    withDigits,
  );
  return json.slice(0, -2) + eventTail(after);
}

/** `JSON.rawJSON` is older than TypeScript's declarations of it. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

/** A `bigint` stands for the digits of a number. */
function withDigits(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? rawJSON(value.toString()) : value;
}
