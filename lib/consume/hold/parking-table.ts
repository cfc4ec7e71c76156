import type { PositionText } from "../../change/position.ts";
import { attributesOf, type PlainValues, updateIf } from "../../state/item-update.ts";
import { deadLetterKey, deadRecordKey, parkedChangeKey, type StateKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import type { StoredRecord } from "../dead-letter/dead-letter.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";
import type { ChainPlace, StoredChange, StoredDeadLetter } from "./parked-change.ts";
import { changeItem, deadLetterItem, expiry, outlineOf } from "./parked-items.ts";

/** DynamoDB takes items of 400 KB. */
const PIECE_BYTES = 350 * 1024;
/** Changes in a page: with 200 KB each, what DynamoDB gives at once is less. */
export const PAGE = 50;

/** The last failure of a change, as its dead letter tells it. */
export type ChangeFailure = Pick<StoredDeadLetter, "attempts" | "lastFailedAt" | "error">;

/**
 * The parked and dead changes of a consumer, in the state table. Nothing here decides: a chain counts as long as the
 * fence lists it, and of its changes those that the partition's checkpoint has passed and redrive has not. What else is
 * found was left by a process that died or was superseded. All writes may be repeated.
 */
export class ParkingTable {
  protected readonly items: ConsumerTable;

  constructor(table: ConsumerTable) {
    this.items = table;
  }

  /** The state table's name. */
  get table(): string {
    return this.items.name;
  }

  /** The key of a change's item: the pointer of a dead letter that is too large for its queue. */
  changeKey({ topic, partition, chain }: ChainPlace, position: PositionText): StateKey {
    return parkedChangeKey(this.items, topic, partition, chain, position);
  }

  /** `closed`: the chain is open no more from the beginning (see `StoredDeadLetter.superseded`), and will be forgotten. */
  async putChange(
    place: ChainPlace,
    change: StoredChange,
    closed: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const item = changeItem(change, closed);
    await this.#put(this.changeKey(place, change.position), item, "park a change", signal);
  }

  /** Stores a record that cannot be read, and is larger than a message of the queue; it expires as that would. */
  async putRecord(
    { shardId, sequenceNumber }: { readonly shardId: string; readonly sequenceNumber: string },
    data: Uint8Array,
    signal: AbortSignal,
  ): Promise<StoredRecord> {
    const { pk, sk } = deadRecordKey(this.items, shardId, sequenceNumber);
    const pieces = Math.ceil(data.length / PIECE_BYTES);
    for (let i = 0; i < pieces; i++) {
      const piece = data.subarray(i * PIECE_BYTES, (i + 1) * PIECE_BYTES);
      const item = { data: { B: piece }, ...attributesOf({ expiresAt: expiry() }) };
      await this.#put({ pk, sk: `${sk}${i + 1}` }, item, "store a record", signal);
    }
    return { table: this.table, pk, sk, pieces };
  }

  /** One that redrive has worked on stays as it is: who writes it anew is a process that was superseded. */
  async putDeadLetter(deadLetter: StoredDeadLetter, signal: AbortSignal): Promise<void> {
    const untouched = "attribute_not_exists(applied) AND attribute_not_exists(superseded)";
    await this.#put(
      this.deadLetterKey(deadLetter),
      deadLetterItem(deadLetter),
      "write a dead letter",
      signal,
      untouched,
    );
  }

  async deleteChange(place: ChainPlace, position: PositionText, signal: AbortSignal): Promise<void> {
    await this.#delete(this.changeKey(place, position), signal);
  }

  /** A change failed again: the dead letter tells of the last failure. */
  async failed(place: ChainPlace, failure: ChangeFailure, signal: AbortSignal): Promise<void> {
    await this.noteFailure(place, failure, " REMOVE trying", {}, signal);
  }

  /** `more` and `values` are set or removed beside the failure. */
  protected async noteFailure(
    place: ChainPlace,
    { attempts, lastFailedAt, error }: ChangeFailure,
    more: string,
    values: PlainValues,
    signal: AbortSignal,
    condition?: string,
  ): Promise<void> {
    const set = `SET attempts=:n,lastFailedAt=:at,#error=:error${more}`;
    const failure = { n: attempts, at: lastFailedAt, error: JSON.stringify(error), ...values };
    await this.update(place, set, failure, signal, { "#error": "error" }, condition);
  }

  /** A change of the chain took effect: it and those before it are done, also where they are written once more. */
  async applied(place: ChainPlace, position: PositionText, signal: AbortSignal): Promise<void> {
    const values = { p: position, none: 0 };
    const set = "SET applied=:p,attempts=:none REMOVE trying,failed";
    await this.update(place, set, values, signal, undefined, notApplied(":p"));
  }

  /** Noted before a list may let go of the chain, so that nobody takes it for done who finds it in none. */
  async overtaken(place: ChainPlace, signal: AbortSignal): Promise<void> {
    await this.update(place, "SET overtaken=:true", { true: true }, signal);
  }

  /** The chain is open no more, a later change took effect: its changes go, the dead letter is remembered for a while. */
  async supersede(place: ChainPlace, signal: AbortSignal): Promise<void> {
    const values = { true: true, expires: expiry() };
    await this.update(
      place,
      "SET superseded=:true,expiresAt=if_not_exists(expiresAt,:expires)",
      values,
      signal,
    );
    await this.deleteChanges(place, signal);
  }

  /** The chain is done. */
  async remove(place: ChainPlace, signal: AbortSignal): Promise<void> {
    await this.deleteChanges(place, signal);
    await this.#delete(this.deadLetterKey(place), signal);
  }

  /** Deletes the changes of a chain that is open no more. */
  async deleteChanges(place: ChainPlace, signal: AbortSignal): Promise<void> {
    for await (const { position } of this.#outline(place, signal)) {
      await this.deleteChange(place, position, signal);
    }
  }

  /**
   * A truncate or sweep at `position` is to come, which removes what its table has below `bound`. Where a chain holds
   * other changes too (of other tables, or between bound and position), those below are deleted, and false is
   * returned: the chain stays. True: it is superseded as a whole.
   */
  async isSuperseded(
    place: ChainPlace,
    table: string,
    { bound, position }: { readonly bound: PositionText; readonly position: PositionText },
    signal: AbortSignal,
  ): Promise<boolean> {
    const older: PositionText[] = [];
    let others = false;
    let firstOther: PositionText | undefined;
    for await (const change of this.#outline(place, signal)) {
      if (change.table === table && change.position < bound) {
        older.push(change.position);
        continue;
      }
      // What stands behind was left by a process that died, and comes again.
      if (change.table === table && change.position >= position) continue;
      others = true;
      firstOther ??= change.position;
    }
    if (!others) return true;
    const last = older.at(-1);
    // The request that stored one may arrive a second time, however late: on the dead letter's record it is done.
    if (last !== undefined && firstOther !== undefined && last < firstOther)
      await this.applied(place, last, signal);
    for (const each of older) await this.deleteChange(place, each, signal);
    return false;
  }

  /** The changes of a chain without their events. */
  async *#outline(
    place: ChainPlace,
    signal: AbortSignal,
  ): AsyncGenerator<Pick<StoredChange, "position" | "table">> {
    const table = this.items.until(signal, "read parked changes");
    const options = { pageSize: PAGE, attributes: ["sk", "table", "position"] };
    for await (const item of table.query(this.changeKey(place, ""), options))
      yield outlineOf(this.items.consumer, item);
  }

  async #put(
    key: StateKey,
    item: StateItem,
    what: string,
    signal: AbortSignal,
    condition?: string,
  ): Promise<void> {
    const table = this.items.until(signal, what);
    await table.put(key, item, condition ? { ConditionExpression: condition } : {});
  }

  /** Of a dead letter that is there: what was removed must not come back as half an item. */
  protected async update(
    place: ChainPlace,
    expression: string,
    values: PlainValues,
    signal: AbortSignal,
    names?: Record<string, string>,
    condition?: string,
  ): Promise<void> {
    await this.items.until(signal, "update a dead letter").update(this.deadLetterKey(place), {
      ...updateIf(expression, `attribute_exists(pk)${condition ? ` AND ${condition}` : ""}`, values),
      ...(names ? { ExpressionAttributeNames: names } : {}),
    });
  }

  async #delete(key: StateKey, signal: AbortSignal): Promise<void> {
    await this.items.until(signal, "delete a parked change").delete(key);
  }

  protected deadLetterKey(place: ChainPlace): StateKey {
    return deadLetterKey(this.items, place);
  }
}

/** A request about a change that arrives when redrive has come further says nothing any more. */
export function notApplied(position: string): string {
  return `(attribute_not_exists(applied) OR applied<${position})`;
}
