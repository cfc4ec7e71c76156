import * as z from "zod";
import type { ChangeEventJson } from "../../change/event.ts";
import { eventFault } from "../../change/event-check.ts";
import { isPosition, type PositionText } from "../../change/position.ts";
import type { PartitionName } from "../../consume/consume-errors.ts";
import { parkingKey } from "../../consume/hold/parked-keys.ts";
import { parseExactJson } from "../../consume/run/json.ts";

const position = z.string().refine(isPosition, "expected a position");
const failure = {
  attempts: z.int().nonnegative(),
  firstFailedAt: z.string(),
  lastFailedAt: z.string(),
  error: z.looseObject({ name: z.string(), message: z.string(), stack: z.string() }),
};
const changeLetter = z.looseObject({
  ...{ consumer: z.string(), topic: z.string(), partition: z.int().nonnegative(), position },
  ...failure,
  payload: z.unknown().optional(),
  payloadItem: z.looseObject({ sk: z.string() }).optional(),
});
const recordLetter = z.looseObject({
  ...{ consumer: z.string(), topic: z.string().optional(), partition: z.int().nonnegative().optional() },
  ...{ first: position.optional(), last: position.optional() },
  ...{ partitionKey: z.string(), shardId: z.string(), sequenceNumber: z.string() },
  ...failure,
  record: z.string().optional(),
  recordItems: z.unknown().optional(),
});

/** A failure as a dead letter tells it. */
export interface LetterFailure {
  readonly attempts: number;
  /** ISO 8601. */
  readonly firstFailedAt: string;
  readonly lastFailedAt: string;
  readonly error: { readonly name: string; readonly message: string; readonly stack: string };
}

/** The dead letter of a change, as its message tells it. */
export interface ChangeLetter extends PartitionName, LetterFailure {
  readonly kind: "change";
  readonly consumer: string;
  readonly position: PositionText;
  /** The key that the change is ordered by (`parkingKey`); undefined if the message does not hold it. */
  readonly key: string | undefined;
  readonly table: string | undefined;
  /** The event's JSON, where the message holds it whole. */
  readonly event: ChangeEventJson | undefined;
  /** Key of the item of the state table where the change stands. */
  readonly item: string | undefined;
}

/** The dead letter of a record that could not be read. */
export interface RecordLetter extends LetterFailure {
  readonly kind: "record";
  readonly consumer: string;
  readonly topic: string | undefined;
  readonly partition: number | undefined;
  /** The changes that it held, as far as its header could be read. */
  readonly first: PositionText | undefined;
  readonly last: PositionText | undefined;
  readonly shardId: string;
  readonly sequenceNumber: string;
  readonly partitionKey: string;
  /** Bytes of the record, where the message holds it. */
  readonly bytes: number | undefined;
}

/** A message of a consumer's dead-letter queue. `foreign`: it is no dead letter of ours, or of another consumer. */
export type Letter = ChangeLetter | RecordLetter | { readonly kind: "foreign" };

/** Reads the message of a consumer's dead-letter queue. Never throws. */
export function readLetter(body: string, consumer: string): Letter {
  let value: unknown;
  try {
    value = parseExactJson(body);
  } catch {
    return { kind: "foreign" };
  }
  const change = changeLetter.safeParse(value).data;
  if (change !== undefined) {
    if (change.consumer !== consumer) return { kind: "foreign" };
    const { payload, payloadItem, error, ...facts } = change;
    const event = payload !== undefined && !eventFault(payload) ? (payload as ChangeEventJson) : undefined;
    return {
      kind: "change",
      ...failureOf(change),
      ...{ consumer, topic: facts.topic, partition: facts.partition, position: facts.position },
      key: event && parkingKey(event),
      table: event && `${event.source.schema}.${event.source.table}`,
      event,
      item: payloadItem?.sk,
    };
  }
  const record = recordLetter.safeParse(value).data;
  const isRecord = record && (record.record !== undefined || record.recordItems !== undefined);
  if (!isRecord || record.consumer !== consumer) return { kind: "foreign" };
  const { topic, partition, first, last, shardId, sequenceNumber, partitionKey } = record;
  return {
    kind: "record",
    ...failureOf(record),
    ...{ consumer, topic, partition, first, last, shardId, sequenceNumber, partitionKey },
    bytes: record.record === undefined ? undefined : Buffer.from(record.record, "base64").length,
  };
}

function failureOf({ attempts, firstFailedAt, lastFailedAt, error }: LetterFailure): LetterFailure {
  const { name, message, stack } = error;
  return { attempts, firstFailedAt, lastFailedAt, error: { name, message, stack } };
}

const claimCheck = z.object({
  ...{ bucket: z.string().min(1), key: z.string().min(1), bytes: z.int().nonnegative() },
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});
const putAsideLetter = z.looseObject({
  ...{ pipeline: z.string(), topic: z.string(), table: z.string(), column: z.string().optional(), position },
  ...{ lsn: z.string(), xid: z.number(), commitTime: z.string(), putAsideAt: z.string() },
  error: z.looseObject({ code: z.string(), message: z.string() }),
  relation: z.looseObject({
    columns: z.array(z.looseObject({ name: z.string(), key: z.boolean() })),
  }),
  message: z.string().optional(),
  messageClaim: claimCheck.optional(),
});

/** The dead letter of a change that capture put aside. */
export type PutAsideLetter = z.output<typeof putAsideLetter>;

/** Reads a message of capture's dead-letter queue; undefined where it is no dead letter of this pipeline. */
export function readPutAsideLetter(body: string, pipeline: string): PutAsideLetter | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined;
  }
  const letter = putAsideLetter.safeParse(value).data;
  return letter?.pipeline === pipeline ? letter : undefined;
}
