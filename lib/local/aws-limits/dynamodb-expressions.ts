import { type AwsRefusal, binaryBytes, firstRefusal, utf8Bytes } from "../../aws/refusal.ts";

/** "Expression parameters": https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-expression-parameters */
const PAGE =
  "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-expression-parameters";
const EXPRESSION_BYTES = 4096;
const PLACEHOLDER_BYTES = 255;
const SUBSTITUTED_BYTES = 2 * 1024 * 1024;
const OPERATORS = 300;
const IN_OPERANDS = 100;

const KINDS = [
  "UpdateExpression",
  "ConditionExpression",
  "FilterExpression",
  "KeyConditionExpression",
  "ProjectionExpression",
] as const;

/** The expressions of a request, and what is substituted in them. */
export type Expressions = {
  readonly [kind in (typeof KINDS)[number]]?: string | undefined;
} & {
  readonly ExpressionAttributeNames?: Readonly<Record<string, string>> | undefined;
  readonly ExpressionAttributeValues?: Readonly<Record<string, unknown>> | undefined;
};

/** Returns why DynamoDB refuses the expressions of a request, or undefined. */
export function expressionRefusal(request: Expressions): AwsRefusal | undefined {
  const given = KINDS.flatMap((kind) => {
    const text = request[kind];
    return text === undefined ? [] : [{ kind, text }];
  });
  const used = new Set(given.flatMap(({ text }) => text.match(/[#:][A-Za-z0-9_]+/g) ?? []));
  const { ExpressionAttributeNames: names = {}, ExpressionAttributeValues: values = {} } = request;
  return firstRefusal([
    ...given.map((expression) => () => sizeRefusal(expression)),
    () => placeholderRefusal("ExpressionAttributeNames", "#", names, used),
    () => placeholderRefusal("ExpressionAttributeValues", ":", values, used),
    () => substitutedRefusal(names, values),
  ]);
}

function sizeRefusal({ kind, text }: { kind: string; text: string }): AwsRefusal | undefined {
  const bytes = utf8Bytes(text);
  if (bytes === 0) return refused(`Invalid ${kind}: The expression can not be empty;`);
  if (bytes > EXPRESSION_BYTES) {
    return refused(
      `Invalid ${kind}: Expression size has exceeded the maximum allowed size; expression size: ${bytes}`,
    );
  }
  const operators = countOperators(text, kind === "UpdateExpression");
  if (operators > OPERATORS) {
    return refused(
      `Invalid ${kind}: The expression contains too many operators; operator count: ${operators}`,
    );
  }
  for (const [, operands = ""] of text.matchAll(/\bIN\s*\(([^()]*)\)/gi)) {
    const count = operands.split(",").length;
    if (count > IN_OPERANDS) {
      return refused(
        `Invalid ${kind}: The IN operator is provided with too many operands; number of operands: ${count}`,
      );
    }
  }
  return undefined;
}

/** Operators and functions. An assignment is none: AWS counts two in `SET a = :val1 + :val2 + :val3`. */
function countOperators(text: string, update: boolean): number {
  const functions = text.match(/\b(?!IN\b|AND\b|OR\b|NOT\b)[a-z_]+\s*\(/gi) ?? [];
  const arithmetic = update ? (text.match(/[+-]/g) ?? []) : [];
  const comparisons = update ? [] : (text.match(/<>|<=|>=|[<>=]/g) ?? []);
  const words = text.match(/\b(?:AND|OR|NOT|IN|BETWEEN)\b/gi) ?? [];
  // The AND of a BETWEEN belongs to it.
  const between = text.match(/\bBETWEEN\b/gi) ?? [];
  return functions.length + arithmetic.length + comparisons.length + words.length - between.length;
}

function placeholderRefusal(
  parameter: string,
  sign: string,
  given: Readonly<Record<string, unknown>>,
  used: ReadonlySet<string>,
): AwsRefusal | undefined {
  const keys = Object.keys(given);
  const wrong = keys.find((key) => !/^[#:][A-Za-z0-9_]+$/.test(key) || !key.startsWith(sign));
  if (wrong !== undefined) return refused(`${parameter} contains invalid key: Syntax error; key: "${wrong}"`);
  const long = keys.find((key) => utf8Bytes(key) > PLACEHOLDER_BYTES);
  if (long !== undefined) {
    return refused(
      `${parameter} contains invalid key: The key has exceeded the maximum allowed length; key: "${long}"`,
    );
  }
  const unused = keys.filter((key) => !used.has(key));
  if (unused.length > 0) {
    return refused(`Value provided in ${parameter} unused in expressions: keys: {${unused.join(", ")}}`);
  }
  const unknown = [...used].find((key) => key.startsWith(sign) && given[key] === undefined);
  if (unknown === undefined) return undefined;
  const what = sign === "#" ? "An expression attribute name" : "An expression attribute value";
  return refused(
    `Invalid expression: ${what} used in expression is not defined; attribute ${sign === "#" ? "name" : "value"}: ${unknown}`,
  );
}

function substitutedRefusal(
  names: Readonly<Record<string, string>>,
  values: Readonly<Record<string, unknown>>,
): AwsRefusal | undefined {
  let bytes = 0;
  for (const [key, name] of Object.entries(names)) bytes += utf8Bytes(key) + utf8Bytes(name);
  for (const [key, value] of Object.entries(values)) bytes += utf8Bytes(key) + contentBytes(value);
  if (bytes <= SUBSTITUTED_BYTES) return undefined;
  return refused(
    `Invalid expression: The size of all substitution variables exceeds the maximum allowed size; size: ${bytes}`,
  );
}

function contentBytes(value: unknown): number {
  if (value instanceof Uint8Array) return binaryBytes(value);
  if (typeof value === "string") return utf8Bytes(value);
  if (typeof value !== "object" || value === null) return 1;
  return Object.values(value).reduce<number>((bytes, one) => bytes + contentBytes(one), 0);
}

function refused(message: string): AwsRefusal {
  return { code: "ValidationException", message, page: PAGE };
}
