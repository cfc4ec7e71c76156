/*
 * Parts of a JSON text by their places, without making values of them: the texts may be large, nested to any depth, and
 * every digit of a number counts.
 */

/** Place of a value's text: `[valueStart, end)`. */
export interface JsonElement {
  readonly valueStart: number;
  readonly end: number;
}

/** A member of a JSON object, by its places in the text. */
export interface JsonMember extends JsonElement {
  readonly name: string;
  /** Index of the name's opening quote. */
  readonly start: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * The members of the JSON object that begins at `at`, in their order. Stops before the value of the first member named
 * in `until`, whose `end` is then its `valueStart`. The text must be JSON, up to there.
 */
export function jsonMembers(text: string, at: number, ...until: readonly string[]): JsonMember[] {
  const members: JsonMember[] = [];
  let i = behindBlanks(text, at + 1);
  while (text[i] !== "}") {
    const start = i;
    const nameEnd = stringEnd(text, start);
    const name = JSON.parse(text.slice(start, nameEnd)) as string;
    const valueStart = behindBlanks(text, behindBlanks(text, nameEnd) + 1);
    if (until.includes(name)) {
      members.push({ name, start, valueStart, end: valueStart });
      break;
    }
    const end = valueEnd(text, valueStart);
    members.push({ name, start, valueStart, end });
    i = nextStart(text, end);
  }
  return members;
}

/** The elements of the JSON array that begins at `at`, in their order. The text must be JSON. */
export function jsonElements(text: string, at: number): JsonElement[] {
  const elements: JsonElement[] = [];
  let i = behindBlanks(text, at + 1);
  while (text[i] !== "]") {
    const end = valueEnd(text, i);
    if (end === i) throw new SyntaxError("a JSON text has no value where one should be");
    elements.push({ valueStart: i, end });
    i = nextStart(text, end);
  }
  return elements;
}

/** Behind the closing quote of the string that begins at `at`. */
export function stringEnd(text: string, at: number): number {
  for (let quote = at; ; ) {
    quote = text.indexOf('"', quote + 1);
    if (quote < 0) throw new SyntaxError("a JSON text ends inside a string");
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
  }
}

/** Returns the index at which the next member or element begins, or that of the closing bracket. */
function nextStart(text: string, end: number): number {
  const i = behindBlanks(text, end);
  return text[i] === "," ? behindBlanks(text, i + 1) : i;
}

function behindBlanks(text: string, at: number): number {
  let i = at;
  while (isBlank(text.charCodeAt(i))) i++;
  return i;
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

/** Behind the value that begins at `at`. */
function valueEnd(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const code = text.charCodeAt(i);
    switch (code) {
      case QUOTE:
        i = stringEnd(text, i) - 1;
        if (depth === 0) return i + 1;
        break;
      case 0x7b: // {
      case 0x5b: // [
        depth++;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        if (depth === 0) return i;
        if (--depth === 0) return i + 1;
        break;
      case 0x2c: // ,
        if (depth === 0) return i;
        break;
      default:
        if (depth === 0 && isBlank(code)) return i;
    }
  }
  throw new RangeError("a JSON text ends inside a value");
}
