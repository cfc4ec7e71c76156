import type { ConfigurationProblem } from "../../errors.ts";

/*
 * Event filtering of an event source mapping, on `data` alone as for Kinesis.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis-filtering.html
 * https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns-content-based-filtering.html
 */

/** One filter pattern, as the object behind FilterCriteria's `Pattern` text: `{ data: { topic: ["shop.public.orders"] } }`. */
export type FilterPattern = Readonly<Record<string, unknown>>;

/** Filters of one mapping at most (AWS raises it to ten on request). */
const MAX_FILTERS = 5;
/** Characters of one pattern as JSON text at most. */
const MAX_PATTERN_CHARACTERS = 4096;

/** Whether the value of a field satisfies; `undefined` is a field that is not there. */
type Matcher = (value: unknown) => boolean;
/** Whether one scalar satisfies a rule. */
type ScalarTest = (scalar: unknown) => boolean;
type Report = (path: string, value: unknown, remedy: string) => void;

/** What `compileFilters` gives: whether a record's data satisfies any of the filters, or what is wrong with them. */
export type CompiledFilters =
  | { readonly problems?: undefined; readonly matches: (data: Uint8Array) => boolean }
  | { readonly problems: readonly ConfigurationProblem[] };

/**
 * Compiles filter patterns. A record passes when one of them matches; without patterns every record passes. With
 * patterns, data that is not a JSON object or array is dropped, as Lambda does.
 */
export function compileFilters(patterns: readonly FilterPattern[]): CompiledFilters {
  const problems: ConfigurationProblem[] = [];
  const report: Report = (path, value, remedy) => problems.push({ path, value, remedy });
  if (patterns.length > MAX_FILTERS) {
    report("filters", patterns.length, `give at most ${MAX_FILTERS} filters`);
  }
  const matchers = patterns.map((pattern, i) => compilePattern(pattern, `filters[${i}]`, report));
  if (problems.length > 0) return { problems };
  if (matchers.length === 0) return { matches: () => true };
  return {
    matches: (data) => {
      const decoded = decode(data);
      return typeof decoded === "object" && decoded !== null && matchers.some((matches) => matches(decoded));
    },
  };
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(data: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(data));
  } catch {
    return undefined;
  }
}

function compilePattern(pattern: FilterPattern, path: string, report: Report): Matcher {
  if (!isObject(pattern) || !isObject(pattern.data) || Object.keys(pattern).length !== 1) {
    report(path, pattern, 'write { "data": { … } }: a Kinesis mapping filters on data and nothing else');
    return () => false;
  }
  const characters = JSON.stringify(pattern).length;
  if (characters > MAX_PATTERN_CHARACTERS) {
    report(path, characters, `write a pattern of at most ${MAX_PATTERN_CHARACTERS} characters`);
  }
  return compileObject(pattern.data, `${path}.data`, report);
}

/** All fields have to match. An array matches when one of its elements does; none at all is a field that is not there. */
function compileObject(pattern: Readonly<Record<string, unknown>>, path: string, report: Report): Matcher {
  if (Object.keys(pattern).length === 0) report(path, pattern, "name at least one field");
  const fields = Object.entries(pattern).map(([name, value]): Matcher => {
    const at = `${path}.${name}`;
    if (name === "$or") return compileOr(value, at, report);
    const matches = compileField(value, at, report);
    return (object) => matches(isObject(object) && Object.hasOwn(object, name) ? object[name] : undefined);
  });
  const all: Matcher = (object) => fields.every((matches) => matches(object));
  const matcher: Matcher = (value) => {
    if (!Array.isArray(value)) return all(value);
    return value.length === 0 ? all(undefined) : value.some(matcher);
  };
  return matcher;
}

function compileField(value: unknown, path: string, report: Report): Matcher {
  if (isObject(value)) return compileObject(value, path, report);
  if (Array.isArray(value) && value.length > 0) {
    const rules = value.map((rule, i) => compileRule(rule, `${path}[${i}]`, report));
    return (field) => {
      const scalars = scalarsOf(field);
      return rules.some((satisfies) => satisfies(scalars));
    };
  }
  report(path, value, "write a list of at least one rule, or an object of nested fields");
  return () => false;
}

function compileOr(value: unknown, path: string, report: Report): Matcher {
  if (!Array.isArray(value) || value.length < 2 || !value.every(isObject)) {
    report(path, value, "write a list of at least two objects");
    return () => false;
  }
  const branches = value.map((branch, i) => compileObject(branch, `${path}[${i}]`, report));
  return (object) => branches.some((matches) => matches(object));
}

/** The scalars a field holds: itself, or those of an array; an object is no leaf and holds none. */
function scalarsOf(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value.flatMap(scalarsOf);
  return value === undefined || isObject(value) ? [] : [value];
}

function compileRule(rule: unknown, path: string, report: Report): (scalars: readonly unknown[]) => boolean {
  if (isScalar(rule)) return (scalars) => scalars.includes(rule);
  const entry = isObject(rule) && Object.keys(rule).length === 1 ? Object.entries(rule)[0] : undefined;
  if (!entry) {
    report(path, rule, "write a text, a number, true, false, null, or an object with one operator");
    return () => false;
  }
  const [operator, operand] = entry;
  if (operator === "exists") {
    if (typeof operand !== "boolean") report(`${path}.exists`, operand, "write true or false");
    return (scalars) => scalars.length > 0 === operand;
  }
  const test =
    operator === "anything-but"
      ? compileAnythingBut(operand, `${path}.anything-but`, report)
      : compileOperator(operator, operand, path, report);
  return (scalars) => scalars.some(test);
}

function compileOperator(operator: string, operand: unknown, path: string, report: Report): ScalarTest {
  const at = `${path}.${operator}`;
  if (operator === "numeric") return compileNumeric(operand, at, report);
  const test = TEXT_OPERATORS[operator];
  if (!test) {
    const known = [...Object.keys(TEXT_OPERATORS), "anything-but", "exists", "numeric"].join(", ");
    report(path, operator, `use one of the operators ${known}`);
    return () => false;
  }
  if (typeof operand !== "string") {
    report(at, operand, "write a text");
    return () => false;
  }
  return (scalar) => typeof scalar === "string" && test(scalar, operand);
}

const TEXT_OPERATORS: Readonly<Record<string, (text: string, operand: string) => boolean>> = {
  prefix: (text, operand) => text.startsWith(operand),
  suffix: (text, operand) => text.endsWith(operand),
  "equals-ignore-case": (text, operand) => text.toLowerCase() === operand.toLowerCase(),
};

/** Any value but the listed ones, or but those that satisfy a text operator; a field has to be there for it. */
function compileAnythingBut(operand: unknown, path: string, report: Report): ScalarTest {
  const listed = Array.isArray(operand) ? operand : [operand];
  if (isObject(operand)) {
    const [operator, text] = Object.entries(operand)[0] ?? ["", undefined];
    const texts = Array.isArray(text) && text.length > 0 ? text : [text];
    const tests = texts.map((one) => compileOperator(operator, one, path, report));
    return (scalar) => !tests.some((test) => test(scalar));
  }
  if (listed.length === 0 || !listed.every((one) => typeof one === "string" || typeof one === "number")) {
    report(path, operand, "write a text or a number, a list of them, or an object with one text operator");
  }
  return (scalar) => !listed.includes(scalar);
}

const COMPARISONS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  "=": (a, b) => a === b,
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

/** One comparison, or two for a range: `[">", 0, "<=", 100]`. */
function compileNumeric(operand: unknown, path: string, report: Report): ScalarTest {
  const parts: readonly unknown[] = Array.isArray(operand) ? operand : [];
  const comparisons: ((value: number) => boolean)[] = [];
  for (let i = 0; i < parts.length; i += 2) {
    const compare = COMPARISONS[String(parts[i])];
    const bound = parts[i + 1];
    if (compare && typeof bound === "number") comparisons.push((value) => compare(value, bound));
  }
  if (parts.length === 0 || parts.length > 4 || comparisons.length * 2 !== parts.length) {
    report(path, operand, 'write one or two comparisons, such as ["=", 5] or [">", 0, "<=", 5]');
  }
  return (scalar) => typeof scalar === "number" && comparisons.every((holds) => holds(scalar));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isScalar(value: unknown): boolean {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}
