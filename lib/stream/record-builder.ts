import { gzipSync } from "node:zlib";
import { CONTROL_EVENTS, type SourceChange } from "../change/change-stream.ts";
import { EncodedChange, POSITION_BYTES } from "../change/encoded-change.ts";
import type { PositionText } from "../change/position.ts";
import { COMPRESSED_TAIL, type RecordRange } from "../change/record.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { RecordFormat } from "./packing.ts";

/** A number of events of one transaction. */
export interface TransactionRun {
  readonly number: number;
  events: number;
}

type EventFormat = Pick<
  RecordFormat,
  "after" | "closing" | "firstClosing" | "ownPosition" | "head" | "tail" | "compressedHead"
>;

const NOTHING = Buffer.alloc(0);
const WHOLE: EventFormat = {
  after: NOTHING,
  closing: NOTHING,
  firstClosing: NOTHING,
  ownPosition: { closing: [], firstClosing: [] },
  head: undefined,
  tail: NOTHING,
  compressedHead: undefined,
};
const LAST = '"last":"';
/** Memory of a record beside its buffer, about: it counts where each change is a record. */
const OBJECTS_BYTES = 640;
/** Records below this are left as they are: little is to be saved. */
const COMPRESS_BYTES = 4096;
const COMMA = 0x2c;

/** Bytes of the open event. */
export function openBytes(change: SourceChange): number {
  return change instanceof EncodedChange ? change.end - change.start : Buffer.byteLength(change.json);
}

/** Bytes that close an open event. */
export function closingBytes(format: EventFormat, first: boolean): number {
  return first ? format.firstClosing.length : format.after.length + POSITION_BYTES + format.closing.length;
}

/** The data of one record while events are added to it: one growing buffer. */
export class RecordBuilder {
  /** The data is a whole record that is not made of events. */
  readonly whole: boolean;
  /** Place of the first event among all events of the writer. */
  readonly sequence: number;
  /** The transactions of the events, in order. */
  readonly transactions: TransactionRun[] = [];
  events = 0;
  controlEvents = 0;
  readonly #format: EventFormat;
  #buffer: Buffer;
  #length = 0;
  /** Offsets of the events and, in the head, of the position of the last of them. */
  #headLength = 0;
  #lastAt = 0;
  #range: RecordRange | undefined;

  /** The pool that the buffer goes back to, if any. */
  readonly #pool: BufferPool | undefined;

  private constructor(
    format: EventFormat,
    sequence: number,
    whole: boolean,
    buffer: Buffer,
    pool: BufferPool | undefined,
  ) {
    this.#format = format;
    this.sequence = sequence;
    this.whole = whole;
    this.#buffer = buffer;
    this.#pool = pool;
  }

  /**
   * A record to add events to, whose first one is `first`; `bytes`: its size, closed; `last`: its predecessor's position,
   * if there is one.
   */
  static begin(
    format: RecordFormat,
    sequence: number,
    bytes: number,
    first: SourceChange,
    last: Buffer | undefined,
    pool: BufferPool,
  ): RecordBuilder {
    const needed = format.headBytes(last === undefined) + bytes + format.tail.length;
    // One event: its size is known, and mostly small.
    const grows = format.maxEvents > 1;
    const buffer = grows ? pool.take(needed) : Buffer.allocUnsafe(needed);
    const record = new RecordBuilder(format, sequence, false, buffer, grows ? pool : undefined);
    if (format.head !== undefined)
      record.#open(format.head, first.position, last?.toString("latin1") ?? null);
    return record;
  }

  /** A record that is there as a whole, and stands for one event; one of no transaction is a control event. */
  static whole(text: string, sequence: number, transaction: number | undefined): RecordBuilder {
    const data = Buffer.from(text);
    const record = new RecordBuilder(WHOLE, sequence, true, data, undefined);
    record.#length = data.length;
    if (transaction !== undefined) record.#count(transaction);
    else {
      record.events++;
      record.controlEvents++;
    }
    return record;
  }

  /** Memory of the record, in bytes. */
  get capacity(): number {
    return this.#buffer.length + OBJECTS_BYTES;
  }

  /** Bytes of the record as it stands. */
  get bytes(): number {
    return this.#length + this.#format.tail.length;
  }

  #open(head: (range: RecordRange) => string, first: PositionText, after: PositionText | null): void {
    this.#range = { first, last: first, after };
    this.#length = this.#headLength = this.#buffer.write(head(this.#range));
    // Not behind the head: the buffer may hold what an earlier record left there.
    this.#lastAt = this.#buffer.lastIndexOf(LAST, this.#headLength - LAST.length) + LAST.length;
  }

  /** Says in the head which event is the last one: its position's text. */
  endAt(last: Uint8Array): void {
    if (this.#headLength > 0) this.#buffer.set(last, this.#lastAt);
  }

  /** Closes the event behind `last` (the predecessor's position, if there is one) and adds it. */
  add(change: SourceChange, openBytes: number, last: Uint8Array | undefined, transaction: number): void {
    const { after, closing, firstClosing, ownPosition } = this.#format;
    this.#reserve(1 + openBytes + closingBytes(this.#format, last === undefined));
    if (this.events > 0) this.#buffer[this.#length++] = COMMA;
    if (change instanceof EncodedChange) {
      change.bytes.copy(this.#buffer, this.#length, change.start, change.end);
      this.#length += openBytes;
    } else this.#length += this.#buffer.write(change.json, this.#length);
    if (last === undefined) {
      this.#append(firstClosing);
      this.#insert(change, this.#length - firstClosing.length, ownPosition.firstClosing);
    } else {
      this.#append(after);
      this.#append(last);
      this.#append(closing);
      this.#insert(change, this.#length - closing.length, ownPosition.closing);
    }
    if (change.table === CONTROL_EVENTS) this.controlEvents++;
    this.#count(transaction);
  }

  /** The data of the record; nothing may be added any more. */
  seal(): Buffer {
    this.#reserve(0);
    this.#append(this.#format.tail);
    const data = this.#buffer.subarray(0, this.#length);
    const { tail, compressedHead } = this.#format;
    if (compressedHead === undefined || this.#range === undefined || data.length < COMPRESS_BYTES)
      return data;
    // The array of events: head and tail end and begin with its brackets.
    const events = data.subarray(this.#headLength - 1, data.length - tail.length + 1);
    const base64 = gzipSync(events, { level: 1 }).toString("base64");
    const last = data.toString("latin1", this.#lastAt, this.#lastAt + POSITION_BYTES);
    const compressed = Buffer.from(compressedHead({ ...this.#range, last }) + base64 + COMPRESSED_TAIL);
    return compressed.length < data.length ? compressed : data;
  }

  /** Nobody uses what `seal` gave any more. */
  free(): void {
    this.#pool?.give(this.#buffer);
  }

  #count(transaction: number): void {
    this.events++;
    const run = this.transactions.at(-1);
    if (run?.number === transaction) run.events++;
    else this.transactions.push({ number: transaction, events: 1 });
  }

  /** Writes the change's own position where its closing text left room for it. */
  #insert(change: SourceChange, closing: number, places: readonly number[]): void {
    for (const place of places) {
      if (change instanceof EncodedChange)
        change.bytes.copy(this.#buffer, closing + place, change.end, change.end + POSITION_BYTES);
      else this.#buffer.write(change.position, closing + place, "latin1");
    }
  }

  /** A few bytes: copied here, since a call to copy them costs more. */
  #append(bytes: Uint8Array): void {
    const buffer = this.#buffer;
    let at = this.#length;
    for (let i = 0; i < bytes.length; i++) buffer[at++] = bytes[i] as number;
    this.#length = at;
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes + this.#format.tail.length;
    if (needed <= this.#buffer.length) return;
    const grown = this.#pool?.take(needed) ?? Buffer.allocUnsafe(needed);
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#pool?.give(this.#buffer);
    this.#buffer = grown;
  }
}
