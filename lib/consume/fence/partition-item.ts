import type { DynamoDBClient, UpdateItemCommandInput } from "@aws-sdk/client-dynamodb";
import type { PartitionName } from "../consume-errors.ts";
import type { ParkedLists } from "../hold/parked-lists.ts";
import { type ItemPlace, readItem, type TableItem, updateItem } from "./table-call.ts";

/** What an update changes, and on what condition. */
type Update = Omit<UpdateItemCommandInput, "TableName" | "Key">;

/** The item of the fence in which a partition stands, for those who work on that partition alone. */
export class PartitionItem {
  readonly #dynamodb: DynamoDBClient;
  readonly #at: ItemPlace;
  readonly place: PartitionName;
  readonly lists: ParkedLists;
  readonly signal: AbortSignal;

  constructor(
    dynamodb: DynamoDBClient,
    at: ItemPlace,
    { place, lists, signal }: { place: PartitionName; lists: ParkedLists; signal: AbortSignal },
  ) {
    this.#dynamodb = dynamodb;
    this.#at = at;
    this.place = place;
    this.lists = lists;
    this.signal = signal;
  }

  read(): Promise<TableItem | undefined> {
    return readItem(this.#dynamodb, "read the fence", this.#at, this.signal);
  }

  /** Returns the item as it stands then; undefined when the condition does not hold. */
  async update(what: string, update: Update, signal = this.signal): Promise<TableItem | undefined> {
    const input = { ...this.#at, ...update, ReturnValues: "ALL_NEW" } as const;
    const answer = await updateItem(this.#dynamodb, what, input, signal);
    return answer && (answer.Attributes ?? {});
  }
}
