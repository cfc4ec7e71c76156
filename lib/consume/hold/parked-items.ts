import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import * as z from "zod/mini";
import type { ClaimCheck } from "../../change/claim-check.ts";
import { isPosition } from "../../change/position.ts";
import type { StateItem } from "../../state/state-table.ts";
import { StateItemError } from "../consume-errors.ts";
import type { DeadLetterError } from "../dead-letter/dead-letter.ts";
import type { StoredChange, StoredDeadLetter } from "./parked-change.ts";

/*
 * Parked changes and their dead letters as items of the state table. What is read there may be of a newer version, or altered by
 * hand: it is checked, and what is not as expected is an error that names the item, never a change that is passed over.
 */

/** How long a dead letter that is closed is remembered, and its change with it. */
export const REMEMBERED_SECONDS = 14 * 24 * 3600;

const text = z.looseObject({ S: z.string() });
const number = z.looseObject({ N: z.string().check(z.regex(/^\d{1,15}$/)) });
const flag = z.optional(z.looseObject({ BOOL: z.boolean() }));
const position = z.looseObject({ S: z.string().check(z.refine(isPosition, "expected a position")) });

const deadLetterAttributes = z.looseObject({
  ...{ topic: text, partition: number, chain: text, key: text, table: text, position, attempts: number },
  ...{ firstFailedAt: text, lastFailedAt: text, error: text },
  ...{ applied: z.optional(position), failed: z.optional(position), trying: flag, superseded: flag },
});
const storedError = z.looseObject({ name: z.string(), message: z.string(), stack: z.string() });
const changeAttributes = z.looseObject({
  ...{ position, table: text, event: z.optional(text), claim: z.optional(text) },
});
const claimCheck = z.looseObject({
  ...{ bucket: z.string(), key: z.string(), bytes: z.int().check(z.nonnegative()) },
  sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
});

/** When something that is closed now may be forgotten, in seconds since 1970. */
export function expiry(): AttributeValue {
  return { N: String(Math.floor(Date.now() / 1000) + REMEMBERED_SECONDS) };
}

/** `closed` from the beginning: it expires, as its dead letter does. */
export function changeItem({ position, table, json, claim }: StoredChange, closed: boolean): StateItem {
  return {
    position: { S: position },
    table: { S: table },
    ...(json === undefined ? {} : { event: { S: json } }),
    ...(claim ? { claim: { S: JSON.stringify(claim) } } : {}),
    ...(closed ? { expiresAt: expiry() } : {}),
  };
}

/** @throws StateItemError */
export function asChange(consumer: string, item: StateItem): StoredChange {
  const { position, table, event, claim } = read(consumer, item, changeAttributes);
  if (!keyOf(item).endsWith(`#${position.S}`)) throw misplaced(consumer, item, "position");
  return {
    position: position.S,
    table: table.S,
    ...(event === undefined ? {} : { json: event.S }),
    ...(claim === undefined
      ? {}
      : { claim: readJson(consumer, item, "claim", claim.S, claimCheck) as ClaimCheck }),
  };
}

/** @throws StateItemError */
export function outlineOf(
  consumer: string,
  item: StateItem,
): { readonly position: string; readonly table: string } {
  const { position, table } = read(consumer, item, changeAttributes);
  if (!keyOf(item).endsWith(`#${position.S}`)) throw misplaced(consumer, item, "position");
  return { position: position.S, table: table.S };
}

export function deadLetterItem(deadLetter: StoredDeadLetter): StateItem {
  return {
    topic: { S: deadLetter.topic },
    partition: { N: String(deadLetter.partition) },
    chain: { S: deadLetter.chain },
    key: { S: deadLetter.key },
    table: { S: deadLetter.table },
    position: { S: deadLetter.position },
    attempts: { N: String(deadLetter.attempts) },
    firstFailedAt: { S: deadLetter.firstFailedAt },
    lastFailedAt: { S: deadLetter.lastFailedAt },
    error: { S: JSON.stringify(deadLetter.error) },
    ...(deadLetter.superseded ? { superseded: { BOOL: true }, expiresAt: expiry() } : {}),
  };
}

/** @throws StateItemError */
export function asDeadLetter(consumer: string, item: StateItem): StoredDeadLetter {
  const deadLetter = read(consumer, item, deadLetterAttributes);
  const { topic, partition, chain } = deadLetter;
  if (keyOf(item) !== `letter#${topic.S}/${partition.N}#${chain.S}`)
    throw misplaced(consumer, item, "topic, partition and chain");
  const error = readJson(consumer, item, "error", deadLetter.error.S, storedError) as DeadLetterError;
  return {
    topic: topic.S,
    partition: Number(partition.N),
    chain: chain.S,
    key: deadLetter.key.S,
    table: deadLetter.table.S,
    position: deadLetter.position.S,
    attempts: Number(deadLetter.attempts.N),
    firstFailedAt: deadLetter.firstFailedAt.S,
    lastFailedAt: deadLetter.lastFailedAt.S,
    error,
    ...(deadLetter.applied ? { applied: deadLetter.applied.S } : {}),
    ...(deadLetter.failed ? { failed: deadLetter.failed.S } : {}),
    ...(deadLetter.trying?.BOOL ? { trying: true } : {}),
    ...(deadLetter.superseded?.BOOL ? { superseded: true } : {}),
  };
}

function read<T extends z.ZodMiniType>(consumer: string, item: StateItem, schema: T): z.output<T> {
  const parsed = schema.safeParse(item);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new StateItemError(consumer, keyOf(item), `${issue?.path.map(String).join(".")}: ${issue?.message}`);
}

function readJson<T extends z.ZodMiniType>(
  consumer: string,
  item: StateItem,
  attribute: string,
  json: string,
  schema: T,
): z.output<T> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new StateItemError(consumer, keyOf(item), `${attribute} is not JSON`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = [attribute, ...(issue?.path ?? [])].map(String).join(".");
  throw new StateItemError(consumer, keyOf(item), `${path}: ${issue?.message}`);
}

function misplaced(consumer: string, item: StateItem, what: string): StateItemError {
  return new StateItemError(consumer, keyOf(item), `${what}: not those of the key`);
}

function keyOf({ sk }: StateItem): string {
  return sk?.S ?? "";
}
