import { fitting, objectOf, optional, position as thePosition, text as theText } from "../../change/shape.ts";
import { attributesOf } from "../../state/item-update.ts";
import type { StateItem } from "../../state/state-table.ts";
import { refuseItem, StateItemError } from "../consume-errors.ts";
import type { StoredChange, StoredDeadLetter } from "./parked-change.ts";

/*
 * Parked changes and their dead letters as items of the state table. What is read there may be of a newer version, or altered by
 * hand: it is checked, and what is not as expected is an error that names the item, never a change that is passed over.
 */

/** Seconds for which a dead letter that is closed is remembered, and its change with it. */
export const REMEMBERED_SECONDS = 14 * 24 * 3600;

export const text = objectOf({ S: theText });
export const position = objectOf({ S: thePosition });

export const changeAttributes = objectOf({
  ...{ position, table: text, event: optional(text), claim: optional(text) },
});

/** Returns the time at which something that is closed now may be forgotten, in seconds since 1970. */
export function expiry(): number {
  return Math.floor(Date.now() / 1000) + REMEMBERED_SECONDS;
}

/** `closed` from the beginning: it expires, as its dead letter does. */
export function changeItem({ position, table, json, claim }: StoredChange, closed: boolean): StateItem {
  return attributesOf({
    ...{ position, table, event: json, claim: claim && JSON.stringify(claim) },
    expiresAt: closed ? expiry() : undefined,
  });
}

/** @throws StateItemError */
export function outlineOf(
  consumer: string,
  item: StateItem,
): { readonly position: string; readonly table: string } {
  const { position, table } = fitting(changeAttributes, item, refuseItem(item, "", consumer));
  if (!keyOf(item).endsWith(`#${position.S}`)) throw misplaced(consumer, item, "position");
  return { position: position.S, table: table.S };
}

export function deadLetterItem(deadLetter: StoredDeadLetter): StateItem {
  const { topic, partition, chain, key, table, position, attempts, firstFailedAt, lastFailedAt } = deadLetter;
  return attributesOf({
    ...{ topic, partition, chain, key, table, position, attempts, firstFailedAt, lastFailedAt },
    error: JSON.stringify(deadLetter.error),
    ...(deadLetter.superseded ? { superseded: true, expiresAt: expiry() } : {}),
  });
}

/** The error of an item that stands under another key than its attributes say; `what`: of which. */
export function misplaced(consumer: string, item: StateItem, what: string): StateItemError {
  return new StateItemError(consumer, keyOf(item), `${what}: not those of the key`);
}

/** An item's sort key. */
export function keyOf({ sk }: StateItem): string {
  return sk?.S ?? "";
}
