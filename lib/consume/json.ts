/*
 * JSON whose numbers stay exact: `JSON.parse` with source text access.
 * https://tc39.es/proposal-json-parse-with-source/
 */

/** Node has both since 21; TypeScript's library not yet. */
const json = JSON as unknown as {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): unknown;
};

/**
 * A number, outside of a string, that a double may not hold: 16 digits or more, or an exponent. It may also match
 * inside a string, which costs time only.
 */
const MAYBE_INEXACT = /[:,[\s]-?(?:\d[\d.]{15,}|\d[\d.]*[eE])/;

/**
 * `JSON.parse`, but an integer beyond 2^53 becomes a `bigint`, and any other number that a double cannot hold
 * to its last digit becomes a string of its own text.
 * @throws SyntaxError as `JSON.parse`.
 */
export function parseExactJson(text: string): unknown {
  if (!MAYBE_INEXACT.test(text)) return JSON.parse(text);
  return json.parse(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined ? exactNumber(value, source) : value,
  );
}

/** `JSON.parse`, but what `JSON.stringify` makes of the result has every number's own digits. */
export function parseVerbatimJson(text: string): unknown {
  return json.parse(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined && String(value) !== source
      ? json.rawJSON(source)
      : value,
  );
}

function exactNumber(value: number, source: string): number | bigint | string {
  if (/^-?\d+$/.test(source)) return Number.isSafeInteger(value) ? value : BigInt(source);
  return sameDecimal(String(value), source) ? value : source;
}

/** Whether two decimal texts name the same number. */
function sameDecimal(a: string, b: string): boolean {
  return canonical(a) === canonical(b);
}

/** Sign, significant digits and the exponent of the last of them. `Infinity` stands for itself. */
function canonical(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (!match) return text;
  const [, sign, whole = "", fraction = "", exponent = "0"] = match;
  const digits = (whole + fraction).replace(/^0+/, "");
  const significant = digits.replace(/0+$/, "");
  if (significant === "") return "0";
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}
