import type { AttributeValue, UpdateItemCommandOutput } from "@aws-sdk/client-dynamodb";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { captureKey } from "./state-key.ts";
import type { ItemUpdate, StateItem } from "./state-table.ts";

/** The place of a capture task's item: one for each slot. */
export interface CapturePlace extends StatePlace {
  /** The number of the slot, where a pipeline has several; the first one's item knows what they share. Default 1. */
  readonly slot?: number | undefined;
}

/** Reads the item as it stands. @throws StateTableError, StateTableUnavailableError */
export function readItem(place: CapturePlace): Promise<StateItem | undefined> {
  return persistentTable(place).get(captureKey(place.pipeline, place.slot));
}

/** Updates the item; returns undefined where the condition does not hold. @throws StateTableError, StateTableUnavailableError */
export function updateItem(
  place: CapturePlace,
  update: ItemUpdate,
): Promise<UpdateItemCommandOutput | undefined> {
  return persistentTable(place).update(captureKey(place.pipeline, place.slot), update);
}

/** Returns a number in the item; 0 where it has none. */
export function number(value: AttributeValue | undefined): number {
  return Number(value?.N ?? "0");
}
