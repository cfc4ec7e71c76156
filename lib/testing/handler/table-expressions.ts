import type { AttributeValue } from "@aws-sdk/client-dynamodb";

/** An item of a table, with its attributes as DynamoDB has them. */
export type TableItem = Record<string, AttributeValue>;

/** Names and values that the expressions of a request use. */
export interface Substitutions {
  readonly ExpressionAttributeNames?: Record<string, string>;
  readonly ExpressionAttributeValues?: Record<string, AttributeValue>;
}

/** Returns what an update expression makes of an item: `SET a=:a,b=if_not_exists(b,:b) REMOVE c,d ADD e :one`. */
export function updated(expression: string, old: TableItem, input: Substitutions): TableItem {
  const item: TableItem = { ...old };
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

/**
 * Returns whether a condition holds: `OR` of `AND`s of comparisons or their opposites; parentheses hold one more such. What is not
 * understood is an error.
 */
export function holds(
  condition: string | undefined,
  item: TableItem | undefined,
  input: Substitutions,
): boolean {
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
  const [, one, list] = /^(.+) IN \((.*)\)$/.exec(text) ?? [];
  if (one !== undefined && list !== undefined)
    return list.split(",").some((each) => holds(`${one}=${each}`, item, input));
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

function nameOf(text: string, { ExpressionAttributeNames: names = {} }: Substitutions): string {
  return names[text.trim()] ?? text.trim();
}

function operand(text: string, item: TableItem, input: Substitutions): AttributeValue | undefined {
  return text.trim().startsWith(":")
    ? input.ExpressionAttributeValues?.[text.trim()]
    : item[nameOf(text, input)];
}
