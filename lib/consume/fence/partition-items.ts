import { fenceKey } from "../../state/state-key.ts";
import { ParkedLists } from "../hold/parked-lists.ts";
import type { ConsumerTable } from "./consumer-table.ts";
import { groupOf } from "./fence-item.ts";
import { PartitionItem } from "./partition-item.ts";

/** The fence of a consumer, for those who work on one partition alone. */
export class PartitionItems {
  protected readonly table: ConsumerTable;
  protected readonly lists: ParkedLists;

  constructor(table: ConsumerTable) {
    this.table = table;
    this.lists = new ParkedLists(table);
  }

  /** The item in which a partition stands. */
  item(topic: string, partition: number, signal: AbortSignal): PartitionItem {
    const key = fenceKey(this.table, topic, groupOf(partition));
    const place = { topic, partition };
    return new PartitionItem(this.table, key, { place, lists: this.lists, signal });
  }
}
