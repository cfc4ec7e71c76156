import { formatTable } from "../../../change/table-pattern.ts";
import type { PublicationFacts } from "../catalog/publication.ts";
import type { LogPipeline } from "../definition.ts";
import type { SlotState } from "../slot/slot-record.ts";
import type { TopicShare } from "./share.ts";
import { SlotEpochError, SlotsReducedError } from "./slots-errors.ts";

/** Checks that a further slot is of the first one's epoch. @throws SlotEpochError */
export function checkSlotEpoch(
  own: Pick<SlotState, "slot" | "epoch"> | undefined,
  first: Pick<SlotState, "epoch">,
): void {
  if (own && own.epoch !== first.epoch) throw new SlotEpochError(own.slot, own.epoch, first.epoch);
}

/** The slots that are given up, the highest first, where the pipeline has had `stored` of them and should have `wanted`. */
export function slotsToRetire(stored: number, wanted: number): readonly number[] {
  return Array.from({ length: Math.max(0, stored - wanted) }, (_, i) => stored - i);
}

/**
 * Checks that a slot may be given up: its publication has no tables. `begun`: an earlier start had begun to give it up.
 * @throws SlotsReducedError
 */
export function checkRetirable(
  { name, source }: LogPipeline,
  stored: number,
  publication: PublicationFacts | undefined,
  begun: boolean,
): void {
  if (publication && publication.tables.length > 0 && !begun)
    throw new SlotsReducedError(name, stored, source.slots);
}

/**
 * Checks that no table is on its way from a slot that is given up to one that stays. `arriving`: of each slot that stays.
 * @throws SlotsReducedError
 */
export function checkNoneArrives(
  { name, source }: LogPipeline,
  stored: number,
  arriving: readonly Readonly<Record<string, number>>[],
): void {
  const froms = arriving.flatMap((tables) => Object.values(tables));
  if (froms.some((from) => from > source.slots)) throw new SlotsReducedError(name, stored, source.slots);
}

/** Returns true if the slot that has a topic has wholly received it: only then it can go on to another one. */
export function isReceived({ tables }: TopicShare, arriving: Readonly<Record<string, number>>): boolean {
  return tables.every((table) => arriving[formatTable(table)] === undefined);
}
