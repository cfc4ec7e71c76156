import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
} from "@aws-sdk/client-dynamodb";
import type { PartitionName } from "./errors.ts";
import type { ParkedLists } from "./parked-lists.ts";
import { callTable } from "./table-call.ts";

/** What an update changes, and on what condition. */
type Update = Omit<UpdateItemCommandInput, "TableName" | "Key">;

/** The item of the fence in which a partition stands, for those who work on that partition alone. */
export class PartitionItem {
  readonly #dynamodb: DynamoDBClient;
  readonly #at: Pick<UpdateItemCommandInput, "TableName" | "Key">;
  readonly place: PartitionName;
  readonly lists: ParkedLists;
  readonly signal: AbortSignal;

  constructor(
    dynamodb: DynamoDBClient,
    table: string,
    key: Record<string, AttributeValue>,
    { place, lists, signal }: { place: PartitionName; lists: ParkedLists; signal: AbortSignal },
  ) {
    this.#dynamodb = dynamodb;
    this.#at = { TableName: table, Key: key };
    this.place = place;
    this.lists = lists;
    this.signal = signal;
  }

  async read(): Promise<Record<string, AttributeValue> | undefined> {
    const { Item } = await callTable("read the fence", this.signal, () =>
      this.#dynamodb.send(
        new GetItemCommand({ TableName: this.#at.TableName, Key: this.#at.Key, ConsistentRead: true }),
        { abortSignal: this.signal },
      ),
    );
    return Item;
  }

  /** Returns the item as it stands then; undefined when the condition does not hold. */
  async update(
    what: string,
    update: Update,
    signal = this.signal,
  ): Promise<Record<string, AttributeValue> | undefined> {
    return callTable(what, signal, async () => {
      const command = new UpdateItemCommand({ ...this.#at, ...update, ReturnValues: "ALL_NEW" });
      try {
        const { Attributes = {} } = await this.#dynamodb.send(command, { abortSignal: signal });
        return Attributes;
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return undefined;
        throw error;
      }
    });
  }
}
