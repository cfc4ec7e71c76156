import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";

type Item = Record<string, AttributeValue>;

/** What happens to one call: `lost` is carried out, but no answer comes. */
export type CallFault = "none" | "throttled" | "lost";

/**
 * The state table of a model test: just what the fence's requests use of DynamoDB's expressions, in memory, so that
 * every step of several processes can be put in any order. The real behaviour is tested on an emulator.
 */
export class MemoryTable {
  readonly #items = new Map<string, Item>();

  /** A client for one process. `step` is awaited before and after each call, and says what becomes of it. */
  client(step: (when: "before" | "after", what: string) => Promise<CallFault>): DynamoDBClient {
    const send = async (command: unknown) => {
      const what = command instanceof UpdateItemCommand ? String(command.input.UpdateExpression) : "get";
      const fault = await step("before", what);
      if (fault === "throttled") throw named("ThrottlingException");
      const result = this.#carryOut(command);
      await step("after", what);
      if (fault === "lost") throw named("TimeoutError");
      if (result instanceof Error) throw result;
      return result;
    };
    return { send } as unknown as DynamoDBClient;
  }

  item(sk: string): Item | undefined {
    return [...this.#items.entries()].find(([key]) => key.endsWith(`|${sk}`))?.[1];
  }

  #carryOut(command: unknown): unknown {
    if (command instanceof GetItemCommand) {
      const item = this.#items.get(keyOf(command.input.Key));
      return { Item: item && { ...item } };
    }
    if (!(command instanceof UpdateItemCommand)) throw new Error("not modelled");
    const { Key, UpdateExpression = "", ConditionExpression, ReturnValues } = command.input;
    const { ExpressionAttributeNames: names = {}, ExpressionAttributeValues: values = {} } = command.input;
    const old = this.#items.get(keyOf(Key)) ?? {};
    const name = (text: string) => names[text.trim()] ?? text.trim();
    const value = (text: string) => values[text.trim()] as AttributeValue;
    const holds = (condition: string) => {
      const [left = "", right = ""] = condition.split("=");
      return JSON.stringify(old[name(left)]) === JSON.stringify(value(right));
    };
    if (ConditionExpression && !ConditionExpression.split(" AND ").every(holds)) {
      return new ConditionalCheckFailedException({ message: "refused", $metadata: {} });
    }
    const item: Item = { ...old };
    const [, set = "", remove = ""] = /^SET (.*?)(?: REMOVE (.*))?$/.exec(UpdateExpression) ?? [];
    for (const assignment of set.split(/,(?![^(]*\))/)) {
      const [left = "", right = ""] = assignment.split("=");
      const unless = /^if_not_exists\((.*),(.*)\)$/.exec(right);
      item[name(left)] = unless
        ? (old[name(unless[1] as string)] ?? value(unless[2] as string))
        : value(right);
    }
    for (const removed of remove.split(",")) delete item[name(removed)];
    this.#items.set(keyOf(Key), item);
    return ReturnValues === "ALL_OLD" ? { Attributes: old } : {};
  }
}

function keyOf(key: Record<string, AttributeValue> | undefined): string {
  return `${key?.pk?.S}|${key?.sk?.S}`;
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}
