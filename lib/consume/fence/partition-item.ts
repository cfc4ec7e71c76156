import type { StateKey } from "../../state/state-key.ts";
import type { ItemUpdate, StateItem } from "../../state/state-table.ts";
import type { PartitionName } from "../consume-errors.ts";
import type { ParkedLists } from "../hold/parked-lists.ts";
import type { ConsumerTable } from "./consumer-table.ts";

/** The item of the fence in which a partition stands, for those who work on that partition alone. */
export class PartitionItem {
  readonly #table: ConsumerTable;
  readonly #key: StateKey;
  readonly lists: ParkedLists;
  readonly place: PartitionName;
  readonly signal: AbortSignal;

  constructor(
    table: ConsumerTable,
    key: StateKey,
    { place, lists, signal }: { place: PartitionName; lists: ParkedLists; signal: AbortSignal },
  ) {
    this.#table = table;
    this.#key = key;
    this.lists = lists;
    this.place = place;
    this.signal = signal;
  }

  read(): Promise<StateItem | undefined> {
    return this.#table.until(this.signal, "read the fence").get(this.#key);
  }

  /** Returns the item as it stands then; undefined when the condition does not hold. */
  async update(what: string, update: ItemUpdate, signal = this.signal): Promise<StateItem | undefined> {
    const table = this.#table.until(signal, what);
    const answer = await table.update(this.#key, { ...update, ReturnValues: "ALL_NEW" });
    return answer && (answer.Attributes ?? {});
  }
}
