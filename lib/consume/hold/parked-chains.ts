import { storedClaimCheck } from "../../change/claim-check.ts";
import type { PositionText } from "../../change/position.ts";
import * as shape from "../../change/shape.ts";
import { deadLetterKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import { refuseItem, StateItemError } from "../consume-errors.ts";
import type { ChainPlace, StoredChange, StoredDeadLetter } from "./parked-change.ts";
import { changeAttributes, keyOf, misplaced, position, text } from "./parked-items.ts";
import { type ChangeFailure, notApplied, PAGE, ParkingTable } from "./parking-table.ts";

/*
 * Reads parked changes and their dead letters for redrives and operators. Kept apart from the invocation's code, so that a deployed
 * consumer's bundle does not contain it.
 */

const { objectOf, optional } = shape;
const number = objectOf({ N: shape.textLike(/^\d{1,15}$/, "expected a number") });
const flag = optional(objectOf({ BOOL: shape.flag }));
const deadLetterAttributes = objectOf({
  ...{ topic: text, partition: number, chain: text, key: text, table: text, position, attempts: number },
  ...{ firstFailedAt: text, lastFailedAt: text, error: text },
  ...{ applied: optional(position), failed: optional(position), trying: flag },
  ...{ overtaken: flag, superseded: flag },
});
const storedError = objectOf({ name: shape.text, message: shape.text, stack: shape.text });

/** The parked and dead changes of a consumer, with what only redrives and operators ask of them. */
export class ParkedChains extends ParkingTable {
  /** Returns whether a change of a chain is there: redrive removes it when it took effect. */
  async hasChange(place: ChainPlace, position: PositionText, signal: AbortSignal): Promise<boolean> {
    const table = this.items.until(signal, "read a parked change");
    return (await table.get(this.changeKey(place, position))) !== undefined;
  }

  /** All dead letters there are, by topic, partition and chain; for one that cannot be read, why. */
  async *deadLetters(signal: AbortSignal): AsyncGenerator<StoredDeadLetter | StateItemError> {
    const prefix = deadLetterKey(this.items);
    const table = this.items.until(signal, "read the dead letters");
    for await (const item of table.query(prefix, { pageSize: PAGE })) {
      let deadLetter: StoredDeadLetter | StateItemError;
      try {
        deadLetter = asDeadLetter(this.items.consumer, item);
      } catch (error) {
        if (!(error instanceof StateItemError)) throw error;
        deadLetter = error;
      }
      yield deadLetter;
    }
  }

  /** @throws StateItemError where it cannot be read. */
  async deadLetter(place: ChainPlace, signal: AbortSignal): Promise<StoredDeadLetter | undefined> {
    const item = await this.items.until(signal, "read a dead letter").get(this.deadLetterKey(place));
    return item && asDeadLetter(this.items.consumer, item);
  }

  /**
   * The changes of a chain behind a position and up to another, in order.
   * @throws StateItemError at one that cannot be read.
   */
  async *changes(
    place: ChainPlace,
    behind: PositionText,
    upTo: PositionText,
    signal: AbortSignal,
  ): AsyncGenerator<StoredChange> {
    const table = this.items.until(signal, "read parked changes");
    const between = [behind, upTo] as const;
    for await (const item of table.query(this.changeKey(place, ""), { between, pageSize: PAGE })) {
      const change = asChange(this.items.consumer, item);
      if (change.position > behind && change.position <= upTo) yield change;
    }
  }

  /**
   * A change failed in a redrive, which names it; where its time was over, it names none, and stays on record as one that was
   * begun.
   */
  async failedAgain(
    place: ChainPlace,
    failure: ChangeFailure,
    named: PositionText | "timed out",
    signal: AbortSignal,
  ): Promise<void> {
    if (named === "timed out")
      return this.noteFailure(place, failure, ",trying=:true", { true: true }, signal);
    const failed = ",failed=:which REMOVE trying";
    await this.noteFailure(place, failure, failed, { which: named }, signal, notApplied(":which"));
  }

  /** Redrive begins with a chain: on record, in case that it ends the process. */
  async trying(place: ChainPlace, signal: AbortSignal): Promise<void> {
    await this.update(place, "SET trying=:true ADD attempts :one", { true: true, one: 1 }, signal);
  }
}

/** Returns whether a later change took effect instead of those of a chain that no list has any more. */
export function isSuperseded({ superseded, overtaken }: StoredDeadLetter): boolean {
  return superseded === true || overtaken === true;
}

/**
 * The change of a chain that failed, as far as it is on record: none where a redrive has come further. `behind` a
 * position: dead letters of earlier versions did not name the change that failed in a redrive, but counted its calls.
 */
export function failedOf(
  deadLetter: StoredDeadLetter,
): { readonly at: PositionText } | { readonly behind: PositionText } | undefined {
  const { position, applied, failed, attempts, trying } = deadLetter;
  if (failed !== undefined) return failed > (applied ?? "") ? { at: failed } : undefined;
  if (applied === undefined) return { at: position };
  return attempts > 0 && !trying ? { behind: applied } : undefined;
}

/** @throws StateItemError */
function asChange(consumer: string, item: StateItem): StoredChange {
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
function asDeadLetter(consumer: string, item: StateItem): StoredDeadLetter {
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
