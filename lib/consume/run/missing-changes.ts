import type { BackfillEnd } from "../../change/control-event.ts";
import type { PositionText } from "../../change/position.ts";
import { fittingJson, listOf, mapOf, objectOf, text, wholeFrom } from "../../change/shape.ts";
import { type PlainValues, updateIf } from "../../state/item-update.ts";
import { missingKey, type StateKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import { type PartitionName, refuseItem } from "../consume-errors.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";

/** Seconds for which it is remembered who accepted what, once it is healed. */
const REMEMBERED_SECONDS = 365 * 24 * 3600;

/**
 * Why changes are missing. `gap`: they never came, and the partition stands before them until somebody accepts that.
 * `expired`: the same, of changes that may have been there.
 * `object`: a large change's object in the claim store is gone, or another one, and the partition stands before it.
 * `unreadable`: they came in a record that could not be read and is a dead letter; the partition goes on.
 * `reset`: an operator had the consumer begin behind them.
 */
export type MissingCause = (typeof CAUSES)[number];
const CAUSES = ["gap", "expired", "object", "unreadable", "reset"] as const;

/** Changes of a topic partition that took no effect at a consumer, and never will by themselves. */
export interface MissingChanges extends PartitionName {
  readonly cause: MissingCause;
  /** They stand behind this position, and up to that one. */
  readonly behind: PositionText;
  readonly upTo: PositionText;
  /** Generation of the record that showed it. */
  readonly writer: number;
  /** ISO 8601. */
  readonly foundAt: string;
  /** The acceptance that they are missing, and the backfills that bring their rows. */
  readonly accepted: Acceptance | undefined;
  /** Tables that a backfill has read as a whole since, and its end has passed in this partition. */
  readonly swept: readonly string[];
}

/** The acceptance that changes are missing, and what brings their rows. */
export interface Acceptance {
  readonly by: string;
  /** ISO 8601. */
  readonly at: string;
  /** Each table of the topic, and the first run of its backfills that counts. None: nothing can be read again. */
  readonly tables: Readonly<Record<string, number>>;
}

/** The tables whose rows are not yet in place again. */
export function unhealedTables({ accepted, swept }: MissingChanges): string[] {
  return Object.keys(accepted?.tables ?? {}).filter((table) => !swept.includes(table));
}

/** Returns whether nothing is left to do about it. */
export function isHealed(missing: MissingChanges): boolean {
  return missing.accepted !== undefined && unhealedTables(missing).length === 0;
}

/** The missing changes of one consumer, in the state table: an item for each stretch of changes. */
export class MissingTable {
  readonly #table: ConsumerTable;

  constructor(table: ConsumerTable) {
    this.#table = table;
  }

  /** Notes what is missing. What was accepted stays as it is. */
  async found(
    { topic, partition, cause, behind, upTo, writer }: Omit<MissingChanges, "foundAt" | "accepted" | "swept">,
    signal: AbortSignal,
  ): Promise<void> {
    const key = missingKey(this.#table, { topic, partition, upTo });
    const set = "SET cause=:cause,behind=:behind,writer=:writer,foundAt=if_not_exists(foundAt,:now)";
    await this.#update(key, set, signal, "attribute_not_exists(accepted)", {
      cause,
      behind,
      writer,
      now: new Date().toISOString(),
    });
  }

  /** Everything that is noted of a consumer, or of one partition: what is healed too. @throws StateItemError */
  async list(signal: AbortSignal, place?: PartitionName): Promise<MissingChanges[]> {
    const table = this.#table.until(signal, "read what is missing");
    const key = missingKey(this.#table, place);
    const found: MissingChanges[] = [];
    for await (const item of table.query(key)) found.push(parse(item));
    return found;
  }

  /** Records that somebody accepts it. The last one counts: their backfills are under way. */
  async accept(missing: MissingChanges, accepted: Acceptance, signal: AbortSignal): Promise<void> {
    // What is swept is not: a backfill's end may have passed since it was read.
    await this.#write({ ...missing, accepted }, { accepted }, "attribute_exists(pk)", signal);
  }

  /**
   * The end of a backfill has passed in a partition: what was missing of its table before the backfill began is in place,
   * if all rows were read and what they did not hold was swept.
   */
  async healedBy(place: PartitionName, end: BackfillEnd, signal: AbortSignal): Promise<void> {
    // Another process may be at the end of another table's.
    while (end.sweep && !(await this.#heal(place, end, signal)));
  }

  /** Returns false where it is to be read again: another wrote of it meanwhile. */
  async #heal(place: PartitionName, end: BackfillEnd, signal: AbortSignal): Promise<boolean> {
    let isWhole = true;
    for (const missing of await this.list(signal, place)) {
      const { upTo, swept, accepted } = missing;
      if (end.startPosition < upTo || swept.includes(end.table)) continue;
      if (end.run < (accepted?.tables[end.table] ?? 0)) continue;
      const healed = { swept: [...swept, end.table], was: swept };
      const asRead = swept.length > 0 ? "swept=:was" : "attribute_exists(pk) AND attribute_not_exists(swept)";
      if (!(await this.#write({ ...missing, ...healed }, healed, asRead, signal))) isWhole = false;
    }
    return isWhole;
  }

  /** Writes what is new of a stretch; healed, it is forgotten some day. */
  async #write(
    missing: MissingChanges,
    {
      accepted,
      swept,
      was = [],
    }: Partial<Pick<MissingChanges, "accepted" | "swept">> & { readonly was?: readonly string[] },
    condition: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    const set = [
      ...(swept ? ["swept=:swept"] : []),
      ...(accepted ? ["accepted=:accepted"] : []),
      ...(isHealed(missing) ? ["expiresAt=:expires"] : []),
    ];
    return this.#update(missingKey(this.#table, missing), `SET ${set.join(",")}`, signal, condition, {
      was: was.length > 0 ? JSON.stringify(was) : undefined,
      swept: swept && JSON.stringify(swept),
      accepted: accepted && JSON.stringify(accepted),
      expires: isHealed(missing) ? Math.ceil(Date.now() / 1000) + REMEMBERED_SECONDS : undefined,
    });
  }

  async #update(
    key: StateKey,
    expression: string,
    signal: AbortSignal,
    condition: string,
    values: PlainValues,
  ): Promise<boolean> {
    const table = this.#table.until(signal, "note what is missing");
    return (await table.update(key, updateIf(expression, condition, values))) !== undefined;
  }
}

const acceptance = objectOf({ by: text, at: text, tables: mapOf(wholeFrom(0)) });
const KEY = /^missing#(.*)\/(\d+)#([0-9A-F]{24}[0-9]{10})$/;

function parse(item: StateItem): MissingChanges {
  const [, topic = "", partition = "", upTo = ""] = KEY.exec(item.sk?.S ?? "") ?? [];
  const accepted = item.accepted?.S;
  return {
    topic,
    partition: Number(partition),
    upTo,
    cause: CAUSES.find((cause) => cause === item.cause?.S) ?? "gap",
    behind: item.behind?.S ?? "",
    writer: Number(item.writer?.N ?? "0"),
    foundAt: item.foundAt?.S ?? "",
    accepted:
      accepted === undefined ? undefined : fittingJson(acceptance, accepted, refuseItem(item, "accepted")),
    swept:
      item.swept?.S === undefined ? [] : fittingJson(listOf(text), item.swept.S, refuseItem(item, "swept")),
  };
}
