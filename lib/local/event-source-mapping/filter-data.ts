/** A number of a record, with its text: numbers that no double tells apart are compared as text. */
export class DataNumber {
  readonly text: string;
  readonly value: number;

  constructor(text: string, value: number) {
    this.text = text;
    this.value = value;
  }
}

/** A byte-order mark stays, and is no JSON: RFC 8259 leaves it to the parser, and Lambda asks for valid JSON. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Reads a record's data: an object or array, or undefined where it is none. With `exact`, which takes longer, its numbers are
 * `DataNumber`s.
 */
export function readData(data: Uint8Array, exact: boolean): object | undefined {
  try {
    const text = utf8.decode(data);
    const read: unknown = exact ? parseExactly(text) : JSON.parse(text);
    return typeof read === "object" && read !== null && !(read instanceof DataNumber) ? read : undefined;
  } catch {
    return undefined;
  }
}

function parseExactly(text: string): unknown {
  try {
    return JSON.parse(text, keepNumber as (key: string, value: unknown) => unknown);
  } catch (error) {
    // Thousands of levels are too many for a reviver, and none for the parser.
    if (error instanceof RangeError) return JSON.parse(text);
    throw error;
  }
}

function keepNumber(_: string, value: unknown, { source = "" }: { readonly source?: string }): unknown {
  return typeof value === "number" ? new DataNumber(source, value) : value;
}

/** Whether a value is an object of JSON. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return (
    typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof DataNumber)
  );
}
