import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { storedClaimCheck } from "../../change/claim-check.ts";
import * as shape from "../../change/shape.ts";
import type { StateItem } from "../../state/state-table.ts";
import { refuseItem, StateItemError } from "../consume-errors.ts";
import type { StoredChange, StoredDeadLetter } from "./parked-change.ts";

/*
 * Parked changes and their dead letters as items of the state table. What is read there may be of a newer version, or altered by
 * hand: it is checked, and what is not as expected is an error that names the item, never a change that is passed over.
 */

/** Seconds for which a dead letter that is closed is remembered, and its change with it. */
export const REMEMBERED_SECONDS = 14 * 24 * 3600;

const { objectOf, optional } = shape;
const text = objectOf({ S: shape.text });
const number = objectOf({ N: shape.textLike(/^\d{1,15}$/, "expected a number") });
const flag = optional(objectOf({ BOOL: shape.flag }));
const position = objectOf({ S: shape.position });

const deadLetterAttributes = objectOf({
  ...{ topic: text, partition: number, chain: text, key: text, table: text, position, attempts: number },
  ...{ firstFailedAt: text, lastFailedAt: text, error: text },
  ...{ applied: optional(position), failed: optional(position), trying: flag },
  ...{ overtaken: flag, superseded: flag },
});
const storedError = objectOf({ name: shape.text, message: shape.text, stack: shape.text });
const changeAttributes = objectOf({
  ...{ position, table: text, event: optional(text), claim: optional(text) },
});

/** Returns the time at which something that is closed now may be forgotten, in seconds since 1970. */
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
  const { position, table, event, claim } = shape.fitting(
    changeAttributes,
    item,
    refuseItem(item, "", consumer),
  );
  if (!keyOf(item).endsWith(`#${position.S}`)) throw misplaced(consumer, item, "position");
  return {
    position: position.S,
    table: table.S,
    ...(event === undefined ? {} : { json: event.S }),
    ...(claim === undefined
      ? {}
      : { claim: shape.fittingJson(storedClaimCheck, claim.S, refuseItem(item, "claim", consumer)) }),
  };
}

/** @throws StateItemError */
export function outlineOf(
  consumer: string,
  item: StateItem,
): { readonly position: string; readonly table: string } {
  const { position, table } = shape.fitting(changeAttributes, item, refuseItem(item, "", consumer));
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
  const deadLetter = shape.fitting(deadLetterAttributes, item, refuseItem(item, "", consumer));
  const { topic, partition, chain } = deadLetter;
  if (keyOf(item) !== `letter#${topic.S}/${partition.N}#${chain.S}`)
    throw misplaced(consumer, item, "topic, partition and chain");
  const error = shape.fittingJson(storedError, deadLetter.error.S, refuseItem(item, "error", consumer));
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
    ...(deadLetter.overtaken?.BOOL ? { overtaken: true } : {}),
    ...(deadLetter.superseded?.BOOL ? { superseded: true } : {}),
  };
}

function misplaced(consumer: string, item: StateItem, what: string): StateItemError {
  return new StateItemError(consumer, keyOf(item), `${what}: not those of the key`);
}

function keyOf({ sk }: StateItem): string {
  return sk?.S ?? "";
}
