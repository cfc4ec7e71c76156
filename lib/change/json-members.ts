/** A member of a JSON object, by its places in the text. */
export interface JsonMember {
  readonly name: string;
  /** Where the name's quote stands. */
  readonly start: number;
  /** The value's text is `[valueStart, end)`. */
  readonly valueStart: number;
  readonly end: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * The members of the JSON object that begins at `at`, in their order, without making values of them: the texts may
 * be large, and every digit of a number counts. Stops before the value of the first member named in `until`, whose `end`
 * is then its `valueStart`. The text must be JSON as capture writes it: no white space outside of values.
 */
export function jsonMembers(text: string, at: number, ...until: readonly string[]): JsonMember[] {
  const members: JsonMember[] = [];
  let i = at + 1;
  while (text[i] !== "}") {
    const start = i;
    const nameEnd = stringEnd(text, start);
    const name = JSON.parse(text.slice(start, nameEnd)) as string;
    const valueStart = nameEnd + 1;
    if (until.includes(name)) {
      members.push({ name, start, valueStart, end: valueStart });
      break;
    }
    const end = valueEnd(text, valueStart);
    members.push({ name, start, valueStart, end });
    i = text[end] === "," ? end + 1 : end;
  }
  return members;
}

/** Behind the closing quote of the string that begins at `at`. */
function stringEnd(text: string, at: number): number {
  for (let quote = at; ; ) {
    quote = text.indexOf('"', quote + 1);
    if (quote < 0) throw new RangeError("a JSON text ends inside a string");
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
  }
}

/** Behind the value that begins at `at`. */
function valueEnd(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
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
    }
  }
  throw new RangeError("a JSON text ends inside a value");
}
