import { BlockList, isIP } from "node:net";
import { DataNumber, isObject } from "./filter-data.ts";

/*
 * The rules of one field. Where the pages leave a question open, the answer is that of AWS's own open implementation,
 * github.com/aws/event-ruler.
 */

/** Whether one scalar satisfies a rule; numbers are `DataNumber`s. */
type ScalarTest = (scalar: unknown) => boolean;
/** Notes what is wrong with a pattern. */
export type Report = (path: string, value: unknown, remedy: string) => void;

const never: ScalarTest = () => false;

/** Compiles one rule of a field's list to a test of the scalars that the field holds. */
export function compileRule(
  rule: unknown,
  path: string,
  report: Report,
): (scalars: readonly unknown[]) => boolean {
  if (typeof rule === "number") {
    const equal = equalsNumber(rule);
    return (scalars) => scalars.some(equal);
  }
  if (rule === null || typeof rule === "string" || typeof rule === "boolean") {
    return (scalars) => scalars.includes(rule);
  }
  const entry = onlyEntry(rule);
  if (!entry) {
    report(path, rule, "write a text, a number, true, false, null, or an object with one operator");
    return () => false;
  }
  const [operator, operand] = entry;
  if (operator === "exists") {
    if (typeof operand !== "boolean") report(`${path}.exists`, operand, "write true or false");
    return (scalars) => scalars.length > 0 === operand;
  }
  const test = compileOperator(operator, operand, path, report);
  return (scalars) => scalars.some(test);
}

function compileOperator(operator: string, operand: unknown, path: string, report: Report): ScalarTest {
  const at = `${path}.${operator}`;
  if (operator === "numeric") return compileNumeric(operand, at, report);
  if (operator === "anything-but") return compileAnythingBut(operand, at, report);
  if (operator === "cidr") return compileCidr(operand, at, report);
  return compileText(operator, operand, path, report);
}

const TEXT_OPERATORS = ["prefix", "suffix", "equals-ignore-case", "wildcard"] as const;

function compileText(operator: string, operand: unknown, path: string, report: Report): ScalarTest {
  const at = `${path}.${operator}`;
  if (!(TEXT_OPERATORS as readonly string[]).includes(operator)) {
    const known = [...TEXT_OPERATORS, "anything-but", "exists", "numeric", "cidr"].join(", ");
    report(path, operator, `use one of the operators ${known}`);
    return never;
  }
  const [inner, insensitive] = onlyEntry(operand) ?? [];
  if (inner === "equals-ignore-case" && (operator === "prefix" || operator === "suffix")) {
    if (typeof insensitive === "string") return textTest(operator, insensitive.toLowerCase(), lower);
    report(`${at}.${inner}`, insensitive, "write a text");
    return never;
  }
  if (typeof operand !== "string") {
    report(at, operand, "write a text");
    return never;
  }
  if (operator === "wildcard") return compileWildcard(operand, at, report);
  return operator === "equals-ignore-case"
    ? textTest(operator, operand.toLowerCase(), lower)
    : textTest(operator, operand, (text) => text);
}

function textTest(operator: string, operand: string, of: (text: string) => string): ScalarTest {
  return (scalar) => {
    if (typeof scalar !== "string") return false;
    const text = of(scalar);
    if (operator === "prefix") return text.startsWith(operand);
    return operator === "suffix" ? text.endsWith(operand) : text === operand;
  };
}

function lower(text: string): string {
  return text.toLowerCase();
}

/** `*` stands for any characters; `\*` and `\\` for themselves. */
function compileWildcard(operand: string, path: string, report: Report): ScalarTest {
  if (!/^(?:[^\\*]|\\[\\*]|\*(?!\*))*$/su.test(operand)) {
    report(
      path,
      operand,
      "write no two wildcards in a row, and a backslash only before * or another backslash",
    );
    return never;
  }
  const source = operand.replace(
    /\\([\\*])|(\*)|[$()+.?[\]^{|}/]/gsu,
    (found, escaped?: string, any?: string) => {
      if (any) return ".*";
      return `\\${escaped ?? found}`;
    },
  );
  const expression = new RegExp(`^${source}$`, "su");
  return (scalar) => typeof scalar === "string" && expression.test(scalar);
}

/** Any value but the listed ones, or but those that satisfy a text operator; a field has to be there for it. */
function compileAnythingBut(operand: unknown, path: string, report: Report): ScalarTest {
  if (isObject(operand)) return compileAnythingButOperator(operand, path, report);
  const listed: readonly unknown[] = Array.isArray(operand) ? operand : [operand];
  if (listed.length > 0 && listed.every((one) => typeof one === "string")) {
    const texts = new Set<unknown>(listed);
    return (scalar) => !texts.has(scalar);
  }
  if (listed.length > 0 && listed.every((one) => typeof one === "number")) {
    checkBounds(listed, path, report);
    const tests = listed.map(equalsNumber);
    return (scalar) => !tests.some((test) => test(scalar));
  }
  report(path, operand, "write texts alone or numbers alone, or an object with one text operator");
  return never;
}

function compileAnythingButOperator(operand: unknown, path: string, report: Report): ScalarTest {
  const [operator, given] = onlyEntry(operand) ?? [];
  if (operator === undefined) {
    report(path, operand, "write one text operator");
    return never;
  }
  const listed: readonly unknown[] = Array.isArray(given) ? given : [given];
  if (listed.length === 0 || listed.includes("")) {
    report(`${path}.${operator}`, given, "write a text, or a list of them, and no empty one");
    return never;
  }
  const tests = listed.map((one) => compileText(operator, one, path, report));
  return (scalar) => !tests.some((test) => test(scalar));
}

/** Numbers beyond are not compared as numbers; up to here six digits behind the point are. */
const LARGEST = 5e9;

/** Equal as text, or as numbers to six digits behind the point where both are small enough. */
function equalsNumber(wanted: number): ScalarTest {
  const text = JSON.stringify(wanted);
  const place = comparable(wanted);
  return (scalar) =>
    scalar instanceof DataNumber &&
    (scalar.text === text || (place !== undefined && comparable(scalar.value) === place));
}

function comparable(value: number): number | undefined {
  return Math.abs(value) <= LARGEST ? Math.trunc(1e6 * (LARGEST + value)) : undefined;
}

function checkBounds(numbers: readonly number[], path: string, report: Report): void {
  const beyond = numbers.find((one) => comparable(one) === undefined);
  if (beyond !== undefined) report(path, beyond, "write numbers from -5.0e9 to 5.0e9");
}

type Comparison = (a: number, b: number) => boolean;
const COMPARISONS: Readonly<Record<string, Comparison>> = {
  "=": (a, b) => a === b,
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

/** One comparison, or a range with its lower bound first: `[">", 0, "<=", 100]`. */
function compileNumeric(operand: unknown, path: string, report: Report): ScalarTest {
  const parts: readonly unknown[] = Array.isArray(operand) ? operand : [];
  const [first, low, second, high] = parts;
  const compare = COMPARISONS[String(first)];
  const single = parts.length === 2 && compare !== undefined && typeof low === "number";
  const range =
    parts.length === 4 &&
    (first === ">" || first === ">=") &&
    (second === "<" || second === "<=") &&
    typeof low === "number" &&
    typeof high === "number";
  if (!single && !range) {
    report(path, operand, 'write one comparison or a range, such as ["=", 5] or [">", 0, "<=", 5]');
    return never;
  }
  const bounds = [low, high].filter((bound) => typeof bound === "number");
  checkBounds(bounds, path, report);
  if (range && low >= high) report(path, operand, "write a lower bound that is less than the upper one");
  const checks = bounds.map((bound, i) => ({
    compare: COMPARISONS[String(i === 0 ? first : second)] as Comparison,
    bound: comparable(bound) ?? 0,
  }));
  return (scalar) => {
    const place = scalar instanceof DataNumber ? comparable(scalar.value) : undefined;
    return place !== undefined && checks.every((check) => check.compare(place, check.bound));
  };
}

/** An address of a network: `10.0.0.0/24`, `2001:db8::/32`. */
function compileCidr(operand: unknown, path: string, report: Report): ScalarTest {
  const [, network = "", length = ""] = /^([0-9a-f.:]+)\/(\d{1,3})$/i.exec(String(operand)) ?? [];
  const version = isIP(network);
  const bits = Number(length);
  if (typeof operand !== "string" || version === 0 || bits > (version === 4 ? 32 : 128)) {
    report(path, operand, 'write a network, such as "10.0.0.0/24"');
    return never;
  }
  const addresses = new BlockList();
  addresses.addSubnet(network, bits, version === 4 ? "ipv4" : "ipv6");
  return (scalar) =>
    typeof scalar === "string" &&
    isIP(scalar) === version &&
    addresses.check(scalar, version === 4 ? "ipv4" : "ipv6");
}

function onlyEntry(value: unknown): readonly [string, unknown] | undefined {
  if (!isObject(value)) return undefined;
  const entries = Object.entries(value);
  return entries.length === 1 ? entries[0] : undefined;
}
