/*
 * JSON whose numbers stay exact. No step recurses: PostgreSQL takes documents of 10,000 levels and more, and `JSON.parse`
 * reads any depth, but not with a reviver, which calls itself for each level.
 */
import { randomBytes } from "node:crypto";
import { stringEnd } from "../../change/json-members.ts";

/**
 * A number, outside of a string, that a double may not hold: 16 digits or more, or an exponent. It may also match
 * inside a string, which costs time only.
 */
const MAYBE_INEXACT = /[:,[\s]-?(?:\d[\d.]{15,}|\d[\d.]*[eE])/g;
/**
 * A number of 16 digits or more. Nearly no text has one, so this check must be fast: V8 skips ahead only over characters that are
 * written out, not over a counted repetition.
 */
const MAYBE_LONG = /[:,[\s-]\d[\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.][\d.]/;
/** A number with an exponent. What ends a number tells it from the hexadecimal digits of a log position. */
const MAYBE_EXPONENT = /\d[eE][-+]?\d+(?:[,\]}\s]|$)/;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const BLANK = /\s*/y;

/** Begins the string that stands for a `bigint` while `JSON.parse` runs; no document can know it. */
const BIGINT = `bigint:${randomBytes(12).toString("base64url")}:`;

/**
 * `JSON.parse`, but an integer beyond 2^53 becomes a `bigint`, and any other number that a double cannot hold
 * to its last digit becomes a string of its own text.
 * @throws SyntaxError as `JSON.parse`.
 */
export function parseExactJson(text: string): unknown {
  if (!MAYBE_LONG.test(text) && !MAYBE_EXPONENT.test(text)) return JSON.parse(text);
  MAYBE_INEXACT.lastIndex = 0;
  const parts: string[] = [];
  let done = 0;
  let bigints = false;
  /** No string is open here. */
  let outside = 0;
  for (let found = MAYBE_INEXACT.exec(text); found; found = MAYBE_INEXACT.exec(text)) {
    const start = found.index + 1;
    for (let quote = text.indexOf('"', outside); quote >= 0 && quote < start; ) {
      outside = stringEnd(text, quote);
      quote = text.indexOf('"', outside);
    }
    if (outside > start) {
      // Inside of a string.
      MAYBE_INEXACT.lastIndex = outside;
      continue;
    }
    outside = start;
    const source = match(NUMBER, text, start);
    const end = start + source.length;
    // Where a name should stand: no JSON, which it must not become.
    const isName = text[end + match(BLANK, text, end).length] === ":";
    const value = source === "" || isName ? 0 : exactNumber(Number(source), source);
    if (typeof value === "number") continue;
    if (typeof value === "bigint") bigints = true;
    parts.push(text.slice(done, start), '"', typeof value === "bigint" ? BIGINT : "", source, '"');
    done = end;
    MAYBE_INEXACT.lastIndex = end;
  }
  if (parts.length === 0) return JSON.parse(text);
  parts.push(text.slice(done));
  const value: unknown = JSON.parse(parts.join(""));
  return bigints ? withBigints(value) : value;
}

function match(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}

/** Puts bigints in the places of the strings that stand for them. */
function withBigints(root: unknown): unknown {
  const whole = { root };
  const open: object[] = [whole];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    // An array has no names in the way, and may have many elements.
    const names = Array.isArray(at) ? at.keys() : Object.keys(at);
    for (const name of names) {
      const value = (at as Record<string | number, unknown>)[name];
      if (typeof value === "object" && value !== null) open.push(value);
      else if (typeof value === "string" && value.startsWith(BIGINT)) {
        // Not by assignment: a member may be named `__proto__`.
        Object.defineProperty(at, name, {
          value: BigInt(value.slice(BIGINT.length)),
          ...{ writable: true, enumerable: true, configurable: true },
        });
      }
    }
  }
  return whole.root;
}

function exactNumber(value: number, source: string): number | bigint | string {
  if (!/[.eE]/.test(source)) return Number.isSafeInteger(value) ? value : BigInt(source);
  return canonicalNumber(String(value)) === canonicalNumber(source) ? value : source;
}

/** Of a number's text: sign, significant digits and the exponent of the last of them: equal for texts of one number. `Infinity` stands for itself. */
export function canonicalNumber(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (!match) return text;
  const [, sign, whole = "", fraction = "", exponent = "0"] = match;
  const digits = whole + fraction;
  // By hand: patterns for zeros at an end take quadratic time for many that are at none.
  let [from, to] = [0, digits.length];
  while (digits[from] === "0") from++;
  while (to > from && digits[to - 1] === "0") to--;
  if (from === to) return "0";
  return `${sign}${digits.slice(from, to)}e${Number(exponent) - fraction.length + digits.length - to}`;
}
