import type { StateItem, WriteCondition } from "./state-table.ts";

/** Attribute values, or an expression's values by name without the colon. Undefined values are left out. */
export type PlainValues = Readonly<Record<string, string | number | boolean | undefined>>;

/** An update of one item, and its condition. */
export interface ConditionalUpdate {
  readonly UpdateExpression: string;
  readonly ConditionExpression: string;
  readonly ExpressionAttributeValues: StateItem;
}

/** Returns values as attributes of an item, as DynamoDB has them; `before`: what their names begin with. */
export function attributesOf(values: PlainValues, before = ""): StateItem {
  const item: StateItem = {};
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === "string") item[before + name] = { S: value };
    else if (typeof value === "number") item[before + name] = { N: String(value) };
    else if (value !== undefined) item[before + name] = { BOOL: value };
  }
  return item;
}

/** Returns a condition of a write with the values that its expressions name. */
export function writeIf(
  ConditionExpression: string,
  values: PlainValues,
): WriteCondition & Omit<ConditionalUpdate, "UpdateExpression"> {
  return { ConditionExpression, ExpressionAttributeValues: attributesOf(values, ":") };
}

/**
 * Returns an update of one item on a condition.
 *
 * @example
 * await table.update(key, updateIf("SET arrived=:now", "arrived<:now", { now: Date.now() }));
 */
export function updateIf(
  UpdateExpression: string,
  condition: string,
  values: PlainValues,
): ConditionalUpdate {
  return { UpdateExpression, ...writeIf(condition, values) };
}
