import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  type PutItemCommandInput,
  QueryCommand,
  UpdateItemCommand,
  type UpdateItemCommandInput,
  type UpdateItemCommandOutput,
} from "@aws-sdk/client-dynamodb";
import { type CallLimits, retryCall } from "./call-retry.ts";
import type { StateKey } from "./state-key.ts";

/** An item of the state table, with its attributes as DynamoDB has them. */
export type StateItem = Record<string, AttributeValue>;

/** The condition of a write, as DynamoDB takes it. */
export type WriteCondition = Pick<
  PutItemCommandInput,
  "ConditionExpression" | "ExpressionAttributeNames" | "ExpressionAttributeValues"
>;

/** An update of one item, as DynamoDB takes it: what it changes, and on what condition. */
export type ItemUpdate = Omit<UpdateItemCommandInput, "TableName" | "Key">;

/** Narrows a query of a partition's items. */
export interface QueryOptions {
  /** Sort keys from one to another, both written without the beginning that the query's key gives. Omit for all of them. */
  readonly between?: readonly [from: string, to: string];
  /** Items in a page, at most. Default: as many as DynamoDB gives at once. */
  readonly pageSize?: number;
  /** The attributes to read. Default: all. */
  readonly attributes?: readonly string[];
}

/**
 * The state table: the one place where calls to it are made. Reads are consistent, every call is tried again within the
 * limits, and a write whose condition does not hold is an answer, not an error.
 *
 * @example
 * const table = new StateTable(dynamodb, "tributary-state", limits);
 * const item = await table.get(captureKey("shop"));
 */
export class StateTable {
  readonly #client: DynamoDBClient;
  readonly #name: string;
  readonly #limits: CallLimits;

  constructor(client: DynamoDBClient, name: string, limits: CallLimits) {
    this.#client = client;
    this.#name = name;
    this.#limits = limits;
  }

  /** Reads one item as it stands now. @throws what the limits make of an error, as every call here does. */
  async get(key: StateKey): Promise<StateItem | undefined> {
    const command = new GetItemCommand({ ...this.#at(key), ConsistentRead: true });
    const { Item } = await retryCall(this.#limits, (options) => this.#client.send(command, options));
    return Item;
  }

  /** Writes an item as a whole. Returns whether the condition held. */
  async put(key: StateKey, attributes: StateItem, condition: WriteCondition = {}): Promise<boolean> {
    const Item = { ...asKey(key), ...attributes };
    const command = new PutItemCommand({ TableName: this.#name, Item, ...condition });
    return (await this.#write((options) => this.#client.send(command, options))) !== undefined;
  }

  /** Changes an item, or begins it. Returns undefined where the condition does not hold. */
  update(key: StateKey, update: ItemUpdate): Promise<UpdateItemCommandOutput | undefined> {
    const command = new UpdateItemCommand({ ...this.#at(key), ...update });
    return this.#write((options) => this.#client.send(command, options));
  }

  /** Deletes an item. Returns whether the condition held. */
  async delete(key: StateKey, condition: WriteCondition = {}): Promise<boolean> {
    const command = new DeleteItemCommand({ ...this.#at(key), ...condition });
    return (await this.#write((options) => this.#client.send(command, options))) !== undefined;
  }

  /** Yields the items of a partition whose sort key begins with that of `key`, in the order of their sort keys. */
  async *query(key: StateKey, options: QueryOptions = {}): AsyncGenerator<StateItem> {
    for await (const page of this.pages(key, options)) yield* page;
  }

  /** Yields the same items page by page. */
  async *pages(
    { pk, sk }: StateKey,
    { between, pageSize, attributes }: QueryOptions = {},
  ): AsyncGenerator<StateItem[]> {
    const [from, to] = between ?? [];
    const range = to !== undefined ? " AND sk BETWEEN :from AND :to" : sk && " AND begins_with(sk, :from)";
    const input = {
      TableName: this.#name,
      KeyConditionExpression: `pk = :pk${range}`,
      ExpressionAttributeValues: {
        ":pk": { S: pk },
        ...(range ? { ":from": { S: sk + (from ?? "") } } : {}),
        ...(to !== undefined ? { ":to": { S: sk + to } } : {}),
      },
      ConsistentRead: true,
      ...(pageSize ? { Limit: pageSize } : {}),
      ...(attributes ? projection(attributes) : {}),
    };
    let last: StateItem | undefined;
    do {
      const command = new QueryCommand({ ...input, ExclusiveStartKey: last });
      const page = await retryCall(this.#limits, (options) => this.#client.send(command, options));
      yield page.Items ?? [];
      last = page.LastEvaluatedKey;
    } while (last);
  }

  async #write<T>(send: (options: { readonly abortSignal?: AbortSignal }) => Promise<T>) {
    return retryCall(this.#limits, async (options): Promise<T | undefined> => {
      try {
        return await send(options);
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return undefined;
        throw error;
      }
    });
  }

  #at(key: StateKey) {
    return { TableName: this.#name, Key: asKey(key) };
  }
}

function asKey({ pk, sk }: StateKey): StateItem {
  return { pk: { S: pk }, sk: { S: sk } };
}

/** By placeholders: some names of attributes are words of DynamoDB's own. */
function projection(attributes: readonly string[]) {
  return {
    ProjectionExpression: attributes.map((name) => `#${name}`).join(","),
    ExpressionAttributeNames: Object.fromEntries(attributes.map((name) => [`#${name}`, name])),
  };
}
