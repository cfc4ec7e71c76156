import {
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import type { AwsRefusal } from "../../aws/refusal.ts";
import { dynamodbRefusal, updatedItemRefusal } from "../../local/aws-limits/dynamodb.ts";
import { holds, type TableItem, updated } from "./table-expressions.ts";

/** The keys of the state table. */
const KEY = { hash: "pk", range: "sk" } as const;

/** Makes the error that a client sees of a call that AWS refuses. */
export type OnRefusal = (refusal: AwsRefusal) => Error;

/**
 * The state table in memory: just what our requests use of DynamoDB's expressions. A call that DynamoDB refuses fails as
 * there. Its real behaviour is tested on an emulator.
 */
export class MemoryTable {
  readonly #items = new Map<string, TableItem>();
  readonly #onRefusal: OnRefusal;

  constructor(onRefusal: OnRefusal = refusalError) {
    this.#onRefusal = onRefusal;
  }

  /** Returns a client that knows this table alone. */
  client(): DynamoDBClient {
    const send = async (command: unknown) => {
      const result = this.carryOut(command);
      if (result instanceof Error) throw result;
      return result;
    };
    return { send } as unknown as DynamoDBClient;
  }

  /** Returns the first item with this sort key. */
  item(sk: string): TableItem | undefined {
    return [...this.#items.entries()].find(([key]) => key.endsWith(`|${sk}`))?.[1];
  }

  /** Returns all items whose sort key begins so, in the order of their keys. */
  items(prefix: string): TableItem[] {
    return this.#sorted().filter((item) => item.sk?.S?.startsWith(prefix));
  }

  /** Returns the item of a request's key. */
  protected itemAt(key: TableItem | undefined): TableItem | undefined {
    return this.#items.get(keyOf(key));
  }

  /** Carries out a call, and returns its answer or the error that it fails with. */
  protected carryOut(command: unknown): unknown {
    const { input } = command as { input?: unknown };
    const refusal = dynamodbRefusal((command as object).constructor.name.replace(/Command$/, ""), input, KEY);
    if (refusal) return this.#onRefusal(refusal);
    if (command instanceof GetItemCommand) {
      const item = this.itemAt(command.input.Key);
      return { Item: item && { ...item } };
    }
    if (command instanceof QueryCommand) return this.#query(command.input);
    if (command instanceof PutItemCommand) {
      const { Item = {}, ConditionExpression } = command.input;
      if (!holds(ConditionExpression, this.itemAt(Item), command.input)) return refused();
      this.#items.set(keyOf(Item), { ...Item });
      return {};
    }
    if (command instanceof DeleteItemCommand) {
      const { Key, ConditionExpression } = command.input;
      if (!holds(ConditionExpression, this.itemAt(Key), command.input)) return refused();
      this.#items.delete(keyOf(Key));
      return {};
    }
    if (!(command instanceof UpdateItemCommand)) throw new Error("not modelled");
    const { Key, UpdateExpression = "", ConditionExpression, ReturnValues } = command.input;
    const old = this.itemAt(Key);
    if (!holds(ConditionExpression, old, command.input)) return refused();
    const item = { ...updated(UpdateExpression, old ?? {}, command.input), ...Key };
    const tooLarge = updatedItemRefusal(item);
    if (tooLarge) return this.#onRefusal(tooLarge);
    this.#items.set(keyOf(Key), item);
    if (ReturnValues === "ALL_NEW") return { Attributes: { ...item } };
    return ReturnValues === "ALL_OLD" ? { Attributes: old } : {};
  }

  #query(input: QueryCommand["input"]): unknown {
    const { ExpressionAttributeValues: values = {}, ExclusiveStartKey, Limit = 1000 } = input;
    const [pk, from = "", to] = [values[":pk"]?.S, values[":from"]?.S, values[":to"]?.S];
    const found = this.#sorted().filter(
      (item) =>
        item.pk?.S === pk &&
        (to === undefined
          ? item.sk?.S?.startsWith(from)
          : (item.sk?.S ?? "") >= from && (item.sk?.S ?? "") <= to),
    );
    const start = ExclusiveStartKey
      ? found.findIndex((item) => (item.sk?.S ?? "") > (ExclusiveStartKey.sk?.S ?? ""))
      : 0;
    const rest = start < 0 ? [] : found.slice(start);
    const page = rest.slice(0, Limit).map((item) => ({ ...item }));
    const last = page.at(-1);
    return {
      Items: page,
      ...(rest.length > Limit && last ? { LastEvaluatedKey: { pk: last.pk, sk: last.sk } } : {}),
    };
  }

  #sorted(): TableItem[] {
    return [...this.#items.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
  }
}

/** Returns the error that an AWS client throws for a refusal. */
export function refusalError({ code, message }: AwsRefusal): Error {
  return Object.assign(new Error(message), { name: code });
}

function refused(): Error {
  return new ConditionalCheckFailedException({ message: "refused", $metadata: {} });
}

function keyOf(key: TableItem | undefined): string {
  return `${key?.pk?.S}|${key?.sk?.S}`;
}
