import type pg from "pg";
import { MalformedMessageError } from "../decode/decode-errors.ts";
import { NULL, type Tuple } from "../decode/pgoutput/tuple.ts";
import type { TextDecode } from "../decode/values/charset.ts";
import { NotText } from "../decode/values/encoder.ts";

/** Rows of a COPY as the server framed them: whole CopyData messages one behind the other. */
export interface CopySegment {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
}

/** The rows of a COPY. */
export interface CopiedRows {
  readonly segments: readonly CopySegment[];
  readonly rows: number;
  /** Of the rows' text, without framing. */
  readonly bytes: number;
  /** The byte bound was reached: rows may be left. */
  readonly cut: boolean;
  /** Text of the last row, without its line end. */
  readonly last: Buffer | undefined;
}

/** Bytes of a CopyData message before its row: type and length. */
export const COPY_HEADER_BYTES = 5;

const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
/** CopyOutResponse, ParameterStatus, NoticeResponse, NotificationResponse: may stand between rows. */
const PASSED_OVER: ReadonlySet<number> = new Set([0x48, 0x53, 0x4e, 0x41]);

/**
 * `COPY … TO STDOUT` into memory, up to a bound. The rows stay in the buffers that the socket gave: `pg` would make an
 * object of each. https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
 */
export class CopyOut implements pg.Submittable {
  readonly done: Promise<CopiedRows>;
  readonly #text: string;
  readonly #maxBytes: number;
  readonly #onCut: () => void;
  readonly #settled = Promise.withResolvers<CopiedRows>();
  #connection: pg.Connection | undefined;
  #handler: ((data: Buffer) => void) | undefined;
  readonly #segments: CopySegment[] = [];
  #rows = 0;
  #bytes = 0;
  #cut = false;
  #last: Buffer | undefined;
  /** A message that has not come whole. */
  #pieces: Buffer[] = [];
  #pending = 0;
  #needed = 0;

  /** `onCut`: the bound is reached, and the session is to be cut. What has come until then is the result. */
  constructor(text: string, maxBytes: number, onCut: () => void) {
    this.#text = text;
    this.#maxBytes = maxBytes;
    this.#onCut = onCut;
    this.done = this.#settled.promise;
    this.done.catch(() => {});
  }

  submit(connection: pg.Connection): void {
    this.#connection = connection;
    const { stream } = connection;
    const [handler] = stream.listeners("data");
    this.#handler = handler as (data: Buffer) => void;
    stream.on("data", this.#take);
    stream.removeListener("data", this.#handler);
    connection.query(this.#text);
  }

  /** Called by `pg`, as are those below. */
  handleError(error: Error): void {
    this.#detach();
    this.#settled.reject(error);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#resolve();
  }

  #resolve(): void {
    this.#settled.resolve({
      segments: this.#segments,
      rows: this.#rows,
      bytes: this.#bytes,
      cut: this.#cut,
      last: this.#last,
    });
  }

  #detach(): void {
    const stream = this.#connection?.stream;
    if (!stream || !this.#handler) return;
    stream.on("data", this.#handler);
    stream.removeListener("data", this.#take);
    this.#handler = undefined;
  }

  readonly #take = (data: Buffer): void => {
    let buffer = data;
    if (this.#pending > 0) {
      this.#pieces.push(data);
      this.#pending += data.length;
      if (this.#pending < this.#needed) return;
      buffer = Buffer.concat(this.#pieces, this.#pending);
      this.#pieces = [];
      this.#pending = 0;
    }
    this.#parse(buffer);
  };

  #parse(buffer: Buffer): void {
    const { length } = buffer;
    let offset = 0;
    let start = 0;
    const keep = (end: number) => {
      if (end > start) this.#segments.push({ buffer, start, end });
    };
    while (length - offset >= COPY_HEADER_BYTES) {
      const type = buffer[offset];
      const end = offset + 1 + buffer.readUInt32BE(offset + 1);
      if (type === COPY_DATA) {
        if (end > length) break;
        this.#rows++;
        this.#bytes += end - offset - COPY_HEADER_BYTES;
        this.#last = buffer.subarray(offset + COPY_HEADER_BYTES, end - 1);
        if (this.#bytes >= this.#maxBytes) {
          this.#cut = true;
          keep(end);
          this.#detach();
          this.#resolve();
          this.#onCut();
          return;
        }
        offset = end;
      } else if (type !== undefined && PASSED_OVER.has(type)) {
        if (end > length) break;
        keep(offset);
        offset = end;
        start = end;
      } else {
        keep(offset);
        this.#handOver(buffer.subarray(type === COPY_DONE ? end : offset));
        return;
      }
    }
    keep(offset);
    if (offset === length) return;
    this.#pieces = [buffer.subarray(offset)];
    this.#pending = length - offset;
    this.#needed =
      this.#pending >= COPY_HEADER_BYTES ? 1 + buffer.readUInt32BE(offset + 1) : COPY_HEADER_BYTES;
  }

  /** The rest is `pg`'s to understand. */
  #handOver(rest: Buffer): void {
    const handler = this.#handler;
    this.#detach();
    if (rest.length > 0) handler?.(rest);
  }
}

const TAB = 0x09;
const BACKSLASH = 0x5c;

/** Bytes that COPY escapes as a letter: `\b` and so on. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS */
const LETTERS: Readonly<Record<number, number>> = {
  98: 8,
  102: 12,
  110: 10,
  114: 13,
  116: 9,
  118: 11,
};

/**
 * Reads a row of COPY text at `[start, end)` (without its line end) as a tuple: where each column's text stands. Escapes
 * are undone in place: the text only becomes shorter. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
 *
 * @throws MalformedMessageError where it has not this number of columns.
 */
export function readCopiedRow(buffer: Buffer, start: number, end: number, columns: number, row: Tuple): void {
  row.reserve(columns);
  const { start: starts, end: ends } = row;
  let from = start;
  for (let column = 0; column < columns; column++) {
    if (from > end) throw malformed(columns, column);
    let at = from;
    let byte = 0;
    while (at < end) {
      byte = buffer[at] as number;
      if (byte === TAB || byte === BACKSLASH) break;
      at++;
    }
    starts[column] = from;
    ends[column] = at;
    if (at < end && byte === BACKSLASH) {
      // The null of COPY, since a text of a backslash and an N would be escaped.
      if (at === from && buffer[at + 1] === 0x4e) {
        starts[column] = NULL;
        ends[column] = NULL;
        at += 2;
      } else at = undoEscapes(buffer, at, end, column, ends);
    }
    from = at + 1;
  }
  if (from !== end + 1 && (columns > 0 || end > start)) throw malformed(columns, columns + 1);
}

/** Undoes the escapes of a column from the first on; gives where it ended in COPY's text. */
function undoEscapes(buffer: Buffer, first: number, end: number, column: number, ends: Int32Array): number {
  let to = first;
  let at = first;
  while (at < end) {
    const byte = buffer[at] as number;
    if (byte === TAB) break;
    if (byte === BACKSLASH) {
      const next = buffer[at + 1] as number;
      buffer[to++] = LETTERS[next] ?? next;
      at += 2;
    } else {
      buffer[to++] = byte;
      at++;
    }
  }
  ends[column] = to;
  return at;
}

/** The texts of these columns of a copied row; undefined where one is null or no text for `decode`. */
export function readTexts(
  line: Buffer,
  columns: number,
  wanted: readonly number[],
  row: Tuple,
  decode: TextDecode,
): string[] | undefined {
  const own = Buffer.from(line);
  readCopiedRow(own, 0, own.length, columns, row);
  const texts: string[] = [];
  for (const i of wanted) {
    const start = row.start[i] as number;
    if (start < 0) return undefined;
    try {
      texts.push(decode(own, start, row.end[i] as number));
    } catch (error) {
      if (error instanceof NotText) return undefined;
      throw error;
    }
  }
  return texts;
}

function malformed(expected: number, got: number): MalformedMessageError {
  return new MalformedMessageError({
    type: "CopyData",
    offset: 0,
    expected: `${expected} columns`,
    got: `${got} or more`,
  });
}
