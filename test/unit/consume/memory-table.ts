import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { dynamodbRefusal, updatedItemRefusal } from "../../../lib/local/aws-limits/dynamodb.ts";
import { collectRefusals } from "../../refusals.ts";

/** The keys of the state table. */
const KEY = { hash: "pk", range: "sk" } as const;

/** What AWS would have refused of all tables of a test file. */
const refusals = collectRefusals();

type Item = Record<string, AttributeValue>;

/**
 * What happens to one call: `lost` is carried out, but no answer comes; `late` is carried out after its sender gave up
 * waiting for an answer, whenever that is; `twice` is answered, and carried out once more at some later time.
 */
export type CallFault = "none" | "throttled" | "lost" | "late" | "twice";

/** The expressions of a request. */
interface Expressions {
  readonly ExpressionAttributeNames?: Record<string, string>;
  readonly ExpressionAttributeValues?: Record<string, AttributeValue>;
}

/**
 * The state table of a model test: just what our requests use of DynamoDB's expressions, in memory, so that
 * every step of several processes can be put in any order. The real behaviour is tested on an emulator. A call that DynamoDB
 * refuses fails as there, and fails the test.
 */
export class MemoryTable {
  readonly #items = new Map<string, Item>();
  /** Updates that changed something when they were carried out for the second time. */
  readonly repeated: string[] = [];

  /**
   * A client for one process. `step` is awaited before and after each call, and says what becomes of it; `arrival` before
   * one that was under way for long arrives.
   */
  client(
    step: (when: "before" | "after", what: string, command: unknown) => Promise<CallFault>,
    arrival: () => Promise<void> = async () => {},
  ): DynamoDBClient {
    const send = async (command: unknown) => {
      const what = describe(command);
      const fault = await step("before", what, command);
      if (fault === "throttled") throw named("ThrottlingException");
      if (fault === "late") {
        void arrival().then(() => this.#carryOut(command));
        throw named("TimeoutError");
      }
      const result = this.#carryOut(command);
      if (fault === "twice") void arrival().then(() => this.#repeat(command));
      await step("after", what, command);
      if (fault === "lost") throw named("TimeoutError");
      if (result instanceof Error) throw result;
      return result;
    };
    return { send } as unknown as DynamoDBClient;
  }

  item(sk: string): Item | undefined {
    return [...this.#items.entries()].find(([key]) => key.endsWith(`|${sk}`))?.[1];
  }

  /** All items whose sort key begins so, in the order of their keys. */
  items(prefix: string): Item[] {
    return this.#sorted().filter((item) => item.sk?.S?.startsWith(prefix));
  }

  #carryOut(command: unknown): unknown {
    const { input } = command as { input?: unknown };
    const refusal = dynamodbRefusal((command as object).constructor.name.replace(/Command$/, ""), input, KEY);
    if (refusal) return refusals.note(refusal);
    if (command instanceof GetItemCommand) {
      const item = this.#items.get(keyOf(command.input.Key));
      return { Item: item && { ...item } };
    }
    if (command instanceof QueryCommand) return this.#query(command.input);
    if (command instanceof PutItemCommand) {
      const { Item = {}, ConditionExpression } = command.input;
      if (!holds(ConditionExpression, this.#items.get(keyOf(Item)), command.input)) return refused();
      this.#items.set(keyOf(Item), { ...Item });
      return {};
    }
    if (command instanceof DeleteItemCommand) {
      const { Key, ConditionExpression } = command.input;
      if (!holds(ConditionExpression, this.#items.get(keyOf(Key)), command.input)) return refused();
      this.#items.delete(keyOf(Key));
      return {};
    }
    if (!(command instanceof UpdateItemCommand)) throw new Error("not modelled");
    const { Key, UpdateExpression = "", ConditionExpression, ReturnValues } = command.input;
    const old = this.#items.get(keyOf(Key));
    if (!holds(ConditionExpression, old, command.input)) return refused();
    const item = { ...updated(UpdateExpression, old ?? {}, command.input), ...Key };
    const tooLarge = updatedItemRefusal(item);
    if (tooLarge) return refusals.note(tooLarge);
    this.#items.set(keyOf(Key), item);
    if (ReturnValues === "ALL_NEW") return { Attributes: { ...item } };
    return ReturnValues === "ALL_OLD" ? { Attributes: old } : {};
  }

  #repeat(command: unknown): void {
    if (!(command instanceof UpdateItemCommand)) return void this.#carryOut(command);
    const look = () => JSON.stringify(Object.entries(this.#items.get(keyOf(command.input.Key)) ?? {}).sort());
    const before = look();
    this.#carryOut(command);
    if (look() !== before) this.repeated.push(`${command.input.Key?.sk?.S}: ${describe(command)}`);
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

  #sorted(): Item[] {
    return [...this.#items.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
  }
}

function describe(command: unknown): string {
  if (command instanceof UpdateItemCommand) return String(command.input.UpdateExpression);
  if (command instanceof PutItemCommand) return `put ${command.input.Item?.sk?.S}`;
  if (command instanceof DeleteItemCommand) return `delete ${command.input.Key?.sk?.S}`;
  return command instanceof QueryCommand ? "query" : "get";
}

/** Returns what an update expression makes of an item: `SET a=:a,b=if_not_exists(b,:b) REMOVE c,d ADD e :one`. */
export function updated(expression: string, old: Item, input: Expressions): Item {
  const item: Item = { ...old };
  const clause = (word: string) =>
    new RegExp(`\\b${word} (.*?)(?= (?:SET|REMOVE|ADD) |$)`).exec(expression)?.[1]?.split(/,(?![^(]*\))/) ??
    [];
  for (const assignment of clause("SET")) {
    const [left = "", right = ""] = assignment.split("=");
    const unless = /^if_not_exists\((.*),(.*)\)$/.exec(right);
    item[nameOf(left, input)] = (
      unless
        ? (operand(unless[1] as string, old, input) ?? operand(unless[2] as string, old, input))
        : operand(right, old, input)
    ) as AttributeValue;
  }
  for (const name of clause("REMOVE")) delete item[nameOf(name, input)];
  for (const addition of clause("ADD")) {
    const [name = "", value = ""] = addition.trim().split(" ");
    const sum = Number(item[nameOf(name, input)]?.N ?? "0") + Number(operand(value, old, input)?.N);
    item[nameOf(name, input)] = { N: String(sum) };
  }
  return item;
}

/** `OR` of `AND`s of comparisons or their opposites; parentheses hold one more such. What is not understood is an error. */
function holds(condition: string | undefined, item: Item | undefined, input: Expressions): boolean {
  if (condition === undefined) return true;
  const or = splitOutside(condition, " OR ");
  if (or.length > 1) return or.some((part) => holds(part, item, input));
  const and = splitOutside(condition, " AND ");
  if (and.length > 1) return and.every((part) => holds(part, item, input));
  const text = condition.trim();
  // Of an attribute that does not exist, a comparison is false, and its opposite true.
  if (text.startsWith("NOT ")) return !holds(text.slice(4), item, input);
  if (text.startsWith("(")) return holds(text.slice(1, -1), item, input);
  const exists = /^attribute_(not_)?exists\((.*)\)$/.exec(text);
  if (exists) return (item?.[nameOf(exists[2] as string, input)] === undefined) === (exists[1] !== undefined);
  const contains = /^contains\((.*),(.*)\)$/.exec(text);
  const [, left = "", operator, right = ""] = contains
    ? [text, contains[1], "contains", contains[2]]
    : (/^([^=<>]+)(<=|=|<|>)(.+)$/.exec(text) ?? []);
  if (operator === undefined) throw new Error(`not modelled: ${text}`);
  const [a, b] = [operand(left, item ?? {}, input), operand(right, item ?? {}, input)];
  if (a === undefined || b === undefined) return false;
  if (operator === "=") return JSON.stringify(a) === JSON.stringify(b);
  if (operator === "contains") return a.S?.includes(b.S ?? "") ?? false;
  const less = a.N === undefined ? (a.S ?? "") < (b.S ?? "") : Number(a.N) < Number(b.N);
  const same = JSON.stringify(a) === JSON.stringify(b);
  return operator === ">" ? !less && !same : less || (operator === "<=" && same);
}

function splitOutside(text: string, separator: string): string[] {
  const parts = [""];
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    if (depth === 0 && text.startsWith(separator, i)) {
      parts.push("");
      i += separator.length - 1;
      continue;
    }
    if (text[i] === "(") depth++;
    if (text[i] === ")") depth--;
    parts.push(`${parts.pop()}${text[i]}`);
  }
  return parts;
}

function nameOf(text: string, { ExpressionAttributeNames: names = {} }: Expressions): string {
  return names[text.trim()] ?? text.trim();
}

function operand(text: string, item: Item, input: Expressions): AttributeValue | undefined {
  return text.trim().startsWith(":")
    ? input.ExpressionAttributeValues?.[text.trim()]
    : item[nameOf(text, input)];
}

function refused(): Error {
  return new ConditionalCheckFailedException({ message: "refused", $metadata: {} });
}

function keyOf(key: Record<string, AttributeValue> | undefined): string {
  return `${key?.pk?.S}|${key?.sk?.S}`;
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}
