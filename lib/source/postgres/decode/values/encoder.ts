/**
 * Turns a value's text form, as PostgreSQL sent it in `buffer[start, end)`, into JSON text. Keeps nothing of the
 * buffer. Throws `ValueMismatch` when the text is not what the type prints under the pinned session settings.
 */
export type ValueEncoder = (buffer: Buffer, start: number, end: number) => string;

/** The text of a value is not of its type's form. Named with table and column by the decoder, never the value. */
export class ValueMismatch extends Error {
  /** The form the type prints, such as `\\x and hexadecimal digits`. */
  readonly expected: string;

  constructor(expected: string) {
    super(`expected ${expected}`);
    this.expected = expected;
  }
}

/** The bytes are not text in the encoding they should be in. */
export class NotText extends Error {
  /** Byte offset of the value's start in the message. */
  readonly offset: number;
  readonly encoding: string;

  constructor(offset: number, encoding = "UTF-8") {
    super(`not valid ${encoding}`);
    this.offset = offset;
    this.encoding = encoding;
  }
}
