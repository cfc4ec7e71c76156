import { MalformedMessageError } from "../decode-errors.ts";
import { NotText } from "../values/encoder.ts";
import type { TextForm } from "../values/text.ts";

/** Reads the fields of one message, each with its bounds checked. One reader serves all messages. */
export class MessageReader {
  readonly #text: TextForm;
  #type = "empty";
  buffer: Buffer = Buffer.alloc(0);
  offset = 0;
  /** The same bytes as `buffer`: a Buffer makes its numbers of 64 bits of four others. */
  #view: DataView | undefined;
  /** Bounds of the message in `buffer`. */
  #start = 0;
  #end = 0;

  constructor(text: TextForm) {
    this.#text = text;
  }

  /** Begins the message in `buffer[start, end)`. */
  open(buffer: Buffer, start: number, end: number): void {
    if (buffer !== this.buffer) {
      this.buffer = buffer;
      this.#view = undefined;
    }
    this.offset = start;
    this.#start = start;
    this.#end = end;
    this.#type = "(no type)";
  }

  /** Makes `buffer` a view on the message alone, for who keeps it. */
  isolate(): void {
    this.buffer = this.buffer.subarray(this.#start, this.#end);
    this.#view = undefined;
    this.offset -= this.#start;
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Names the message, for errors. */
  named(type: string): void {
    this.#type = type;
  }

  uint8(field: string): number {
    this.#need(1, field);
    return this.buffer[this.offset++] as number;
  }

  int16(field: string): number {
    this.#need(2, field);
    const value = this.buffer.readInt16BE(this.offset);
    this.offset += 2;
    return value;
  }

  int32(field: string): number {
    this.#need(4, field);
    const value = this.buffer.readInt32BE(this.offset);
    this.offset += 4;
    return value;
  }

  uint32(field: string): number {
    return this.int32(field) >>> 0;
  }

  uint64(field: string): bigint {
    this.#need(8, field);
    const { buffer } = this;
    this.#view ??= new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    const value = this.#view.getBigUint64(this.offset);
    this.offset += 8;
    return value;
  }

  int64(field: string): bigint {
    return BigInt.asIntN(64, this.uint64(field));
  }

  /** A count: an int16 that is not negative. */
  count16(field: string): number {
    const value = this.int16(field);
    if (value < 0) throw this.malformed(`${field} of 0 or more`, String(value), 2);
    return value;
  }

  /** Skips bytes that are preceded by their length; gives their start, `offset` is their end. */
  sized(field: string): number {
    const length = this.int32(`length of ${field}`);
    if (length < 0) throw this.malformed(`length of ${field} of 0 or more`, String(length), 4);
    this.#need(length, field);
    const start = this.offset;
    this.offset += length;
    return start;
  }

  /** A name that a zero byte ends. @throws NotName where its bytes are no text. */
  name(field: string): string {
    const start = this.offset;
    const end = this.#zero(field);
    try {
      return this.#text.decode(this.buffer, start, end);
    } catch (error) {
      if (error instanceof NotText)
        throw new NotName(field, this.buffer.subarray(start, end), error.encoding);
      throw error;
    }
  }

  /** Text that a zero byte ends and that must not stop the stream: bytes that are no text are read as latin1. */
  string(field: string): string {
    const start = this.offset;
    const end = this.#zero(field);
    try {
      return this.#text.decode(this.buffer, start, end);
    } catch (error) {
      if (error instanceof NotText) return this.buffer.toString("latin1", start, end);
      throw error;
    }
  }

  /** Moves behind the zero byte; gives its place. */
  #zero(field: string): number {
    const end = this.buffer.indexOf(0, this.offset);
    if (end === -1 || end >= this.#end)
      throw this.malformed(`${field} ended by a zero byte`, "the end of the message");
    this.offset = end + 1;
    return end;
  }

  /** True if the whole message has been read. */
  get atEnd(): boolean {
    return this.offset === this.#end;
  }

  /** Checks that nothing is left. */
  close(): void {
    if (this.offset !== this.#end) {
      throw this.malformed("the end of the message", `${this.#end - this.offset} more bytes`);
    }
  }

  /** `back`: how many bytes before the current offset the trouble stands. */
  malformed(expected: string, got: string, back = 0): MalformedMessageError {
    return new MalformedMessageError({
      type: this.#type,
      offset: this.offset - this.#start - back,
      expected,
      got,
    });
  }

  #need(bytes: number, field: string): void {
    const left = this.#end - this.offset;
    if (left < bytes) throw this.malformed(`${field} (${bytes} bytes)`, `${left} bytes`);
  }
}

/** The bytes of a name are not text in the encoding they should be in. */
export class NotName extends Error {
  readonly what: string;
  readonly encoding: string;
  /** As people may write it: `t\xe9`. */
  readonly shown: string;

  constructor(what: string, bytes: Uint8Array, encoding: string) {
    super(`not valid ${encoding}`);
    this.what = what;
    this.encoding = encoding;
    this.shown = showBytes(bytes);
  }
}

/** Bytes as an error shows them: ASCII as it is, the rest as `\xe9`. */
export function showBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) =>
    byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}

/** A byte as an error shows it: `'I'` or `0x07`. */
export function showByte(byte: number): string {
  return byte > 32 && byte < 127
    ? `'${String.fromCharCode(byte)}'`
    : `byte 0x${byte.toString(16).padStart(2, "0")}`;
}
