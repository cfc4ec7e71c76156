import * as z from "zod";
import { type AwsRefusal, binaryBytes, firstRefusal, utf8Bytes } from "../../aws/refusal.ts";
import { expressionRefusal } from "./dynamodb-expressions.ts";
import { numberRefusal } from "./dynamodb-numbers.ts";

/*
 * Refusals of DynamoDB for the calls that we make: single items, queries. Requests of the SDK and requests as JSON on the wire
 * are both understood: they differ in binary values only.
 */

/** "Service, account, and table quotas": items, keys, names. */
const CONSTRAINTS = "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html";
const ITEM_BYTES = 400 * 1024;
const HASH_KEY_BYTES = 2048;
const RANGE_KEY_BYTES = 1024;
const NAME_BYTES = 65_535;
const NESTING_LEVELS = 32;

const item = z.record(z.string(), z.unknown());
const request = z.looseObject({
  Item: item.optional(),
  Key: item.optional(),
  ExclusiveStartKey: item.optional(),
  UpdateExpression: z.string().optional(),
  ConditionExpression: z.string().optional(),
  FilterExpression: z.string().optional(),
  KeyConditionExpression: z.string().optional(),
  ProjectionExpression: z.string().optional(),
  ExpressionAttributeNames: z.record(z.string(), z.string()).optional(),
  ExpressionAttributeValues: item.optional(),
});

/** Names of a table's key attributes. */
export interface TableKey {
  readonly hash: string;
  readonly range?: string | undefined;
}

/** Returns why DynamoDB refuses a request, or undefined. `key`, where known, makes a put's keys known. */
export function dynamodbRefusal(operation: string, input: unknown, key?: TableKey): AwsRefusal | undefined {
  const parsed = request.safeParse(input);
  if (!parsed.success) return undefined;
  const { Item, Key, ExclusiveStartKey, ExpressionAttributeValues = {} } = parsed.data;
  const values = [Item, Key, ExclusiveStartKey, ExpressionAttributeValues].flatMap((one) =>
    Object.entries(one ?? {}),
  );
  return firstRefusal([
    () => expressionRefusal(parsed.data),
    ...values.map(
      ([name, value]) =>
        () =>
          attributeRefusal(name, value),
    ),
    ...[Item, Key].map((one) => () => one && key && keyRefusal(one, key)),
    () => (Item && operation === "PutItem" ? itemRefusal(Item, "Item size has exceeded") : undefined),
  ]);
}

/** Returns why an item as an update leaves it is refused, or undefined. */
export function updatedItemRefusal(updated: Readonly<Record<string, unknown>>): AwsRefusal | undefined {
  return itemRefusal(updated, "Item size to update has exceeded");
}

/** Size of an item as DynamoDB counts it: names and values in UTF-8. */
export function itemBytes(attributes: Readonly<Record<string, unknown>>): number {
  let bytes = 0;
  for (const [name, value] of Object.entries(attributes)) bytes += utf8Bytes(name) + valueBytes(value);
  return bytes;
}

function itemRefusal(attributes: Readonly<Record<string, unknown>>, what: string): AwsRefusal | undefined {
  if (itemBytes(attributes) <= ITEM_BYTES) return undefined;
  return validation(`${what} the maximum allowed size`);
}

function keyRefusal(
  attributes: Readonly<Record<string, unknown>>,
  { hash, range }: TableKey,
): AwsRefusal | undefined {
  return firstRefusal([
    () => oneKeyRefusal(hash, attributes[hash], HASH_KEY_BYTES, HASH_KEY_TOO_LONG),
    () =>
      range === undefined
        ? undefined
        : oneKeyRefusal(range, attributes[range], RANGE_KEY_BYTES, RANGE_KEY_TOO_LONG),
  ]);
}

const WRONG_VALUES = "One or more parameter values were invalid:";
const HASH_KEY_TOO_LONG = `${WRONG_VALUES} Size of hashkey has exceeded the maximum size limit of2048 bytes`;
const RANGE_KEY_TOO_LONG = `${WRONG_VALUES} Aggregated size of all range keys has exceeded the size limit of 1024 bytes`;

function oneKeyRefusal(name: string, value: unknown, limit: number, tooLong: string): AwsRefusal | undefined {
  const { type, content } = typed(value);
  if (type === undefined) return validation(`${WRONG_VALUES} Missing the key ${name} in the item`);
  const bytes = valueBytes(value);
  if (bytes === 0 && (type === "S" || type === "B") && content !== undefined) {
    const kind = type === "S" ? "string" : "binary";
    return validation(
      `One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty ${kind} value. Key: ${name}`,
    );
  }
  return bytes > limit ? validation(tooLong) : undefined;
}

function attributeRefusal(name: string, value: unknown, level = 1): AwsRefusal | undefined {
  if (utf8Bytes(name) > NAME_BYTES) {
    return validation(`${WRONG_VALUES} Attribute name is too large, must be less than 65536 bytes`);
  }
  if (level > NESTING_LEVELS) return validation("Nesting Levels have exceeded supported limits");
  const { type, content } = typed(value);
  if (type === "N") return numberRefusal(String(content));
  if (type === "NS") {
    return firstRefusal(list(content).map((one) => () => numberRefusal(String(one))));
  }
  return firstRefusal(
    children(type, content).map(
      ([child, of]) =>
        () =>
          attributeRefusal(child, of, level + 1),
    ),
  );
}

/** https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html */
function valueBytes(value: unknown): number {
  const { type, content } = typed(value);
  switch (type) {
    case "S":
      return utf8Bytes(String(content));
    case "N":
      return numberBytes(String(content));
    case "B":
      return binaryBytes(content);
    case "SS":
      return sum(list(content), (one) => utf8Bytes(String(one)));
    case "NS":
      return sum(list(content), (one) => numberBytes(String(one)));
    case "BS":
      return sum(list(content), binaryBytes);
    case "L":
    case "M":
      return 3 + sum(children(type, content), ([name, of]) => 1 + utf8Bytes(name) + valueBytes(of));
    default:
      return 1;
  }
}

/** A byte for two significant digits, one more, and one for a minus. */
function numberBytes(text: string): number {
  const digits = text
    .replace(/e.*$/i, "")
    .replace(/[^0-9]/g, "")
    .replace(/^0+|0+$/g, "").length;
  return Math.ceil(digits / 2) + 1 + (text.startsWith("-") ? 1 : 0);
}

/** The parts of a list or map, a list's without names. */
function children(type: string | undefined, content: unknown): readonly (readonly [string, unknown])[] {
  if (type === "L") return list(content).map((one) => ["", one] as const);
  return type === "M" && typeof content === "object" && content !== null ? Object.entries(content) : [];
}

function typed(value: unknown): { type?: string; content?: unknown } {
  if (typeof value !== "object" || value === null) return {};
  const [type, content] = Object.entries(value).find(([, one]) => one !== undefined) ?? [];
  return type === undefined ? {} : { type, content };
}

function list(content: unknown): readonly unknown[] {
  return Array.isArray(content) ? content : [];
}

function sum<T>(parts: readonly T[], bytesOf: (part: T) => number): number {
  return parts.reduce((bytes, part) => bytes + bytesOf(part), 0);
}

function validation(message: string): AwsRefusal {
  return { code: "ValidationException", message, page: CONSTRAINTS };
}
