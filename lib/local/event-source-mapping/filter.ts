import { ConfigurationError } from "../../change/tributary-error.ts";

/*
 * Event filtering of an event source mapping, on `data` alone as for Kinesis, with the rules that the filters of consumers are made
 * of (`topicFilters`): exact texts, prefixes and suffixes.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis-filtering.html
 * https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
 */

/** One filter pattern, as the object behind FilterCriteria's `Pattern` text: `{ data: { topic: ["shop.public.orders"] } }`. */
export type FilterPattern = Readonly<Record<string, unknown>>;

/** Filters of one mapping at most (AWS raises it to ten on request). */
const MAX_FILTERS = 5;
/** Characters of one pattern as JSON text at most. */
const MAX_PATTERN_CHARACTERS = 4096;

/** Tests the value of a field; `undefined` is a field that is not there. */
type Matcher = (value: unknown) => boolean;

/**
 * Compiles filter patterns. A record passes when one of them matches; without patterns every record passes. With
 * patterns, data that is not a JSON object or array is dropped, as Lambda does.
 * @throws ConfigurationError naming the first place that is wrong
 */
export function compileFilters(patterns: readonly FilterPattern[]): (data: Uint8Array) => boolean {
  if (patterns.length > MAX_FILTERS)
    refuse("filters", patterns.length, `give at most ${MAX_FILTERS} filters`);
  if (patterns.length === 0) return () => true;
  const matchers = patterns.map((pattern, i) => compilePattern(pattern, `filters[${i}]`));
  return (data) => {
    const read = readData(data);
    return read !== undefined && matchers.some((matches) => matches(read));
  };
}

function refuse(path: string, value: unknown, remedy: string): never {
  throw new ConfigurationError("The event source mapping", [{ path, value, remedy }]);
}

function compilePattern(pattern: FilterPattern, path: string): Matcher {
  if (!isObject(pattern) || !isObject(pattern.data) || Object.keys(pattern).length !== 1) {
    refuse(path, pattern, 'write { "data": { … } }: a Kinesis mapping filters on data and nothing else');
  }
  const characters = JSON.stringify(pattern).length;
  if (characters > MAX_PATTERN_CHARACTERS) {
    refuse(path, characters, `write a pattern of at most ${MAX_PATTERN_CHARACTERS} characters`);
  }
  return compileObject(pattern.data, `${path}.data`);
}

/** All fields have to match. An array matches when one of its elements does; none at all is a field that is not there. */
function compileObject(pattern: Readonly<Record<string, unknown>>, path: string): Matcher {
  if (Object.keys(pattern).length === 0) refuse(path, pattern, "name at least one field");
  const fields = Object.entries(pattern).map(([name, value]): Matcher => {
    const matches = compileField(value, `${path}.${name}`);
    return (object) => matches(isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined);
  });
  const all: Matcher = (object) => fields.every((matches) => matches(object));
  const matcher: Matcher = (value) => {
    if (!Array.isArray(value)) return all(value);
    return value.length === 0 ? all(undefined) : value.some(matcher);
  };
  return matcher;
}

function compileField(value: unknown, path: string): Matcher {
  if (isObject(value)) return compileObject(value, path);
  if (Array.isArray(value) && value.length > 0) {
    const rules = value.map((rule, i) => compileRule(rule, `${path}[${i}]`));
    return (field) => scalarsOf(field).some((scalar) => rules.some((satisfies) => satisfies(scalar)));
  }
  return refuse(path, value, "write a list of at least one rule, or an object of nested fields");
}

function compileRule(rule: unknown, path: string): Matcher {
  if (typeof rule === "string") return (scalar) => scalar === rule;
  const [entry, ...others] = isObject(rule) ? Object.entries(rule) : [];
  const [operator, text] = entry ?? [];
  if (others.length === 0 && typeof text === "string") {
    if (operator === "prefix") return (scalar) => typeof scalar === "string" && scalar.startsWith(text);
    if (operator === "suffix") return (scalar) => typeof scalar === "string" && scalar.endsWith(text);
  }
  return refuse(
    path,
    rule,
    'write a text, { "prefix": "…" } or { "suffix": "…" }: the mapping on this machine has no other rules',
  );
}

/** The scalars a field holds: itself, or those of an array; an object is no leaf and holds none. */
function scalarsOf(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value.flatMap(scalarsOf);
  return value === undefined || isObject(value) ? [] : [value];
}

/** A byte-order mark stays, and is no JSON: RFC 8259 leaves it to the parser, and Lambda asks for valid JSON. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads a record's data: an object or array, or undefined where it is none. */
function readData(data: Uint8Array): object | undefined {
  try {
    const read: unknown = JSON.parse(utf8.decode(data));
    return typeof read === "object" && read !== null ? read : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
