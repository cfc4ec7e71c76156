import { constants } from "node:buffer";
import type { Piece } from "../../../change/encoded-change.ts";

/** Several events share a piece of memory of this size; a larger event has one of its own. */
const PIECE_BYTES = 256 * 1024;
/** Pieces that are watched for being free again. */
const PIECES = 8;

const POWERS = Float64Array.from({ length: 11 }, (_, power) => 10 ** power);

/** The event passes what one text can hold (V8: about 512 million characters). */
export class EventTooLong extends Error {}

/**
 * Memory into which events are written as UTF-8, one behind the other. What was written stays what it is as long as a change holds
 * it. Writers reserve room, then write at `length` and move it on.
 */
export class EventBytes {
  piece: Piece = { bytes: Buffer.alloc(0), held: 0 };
  /** Those of the piece. */
  bytes: Buffer = this.piece.bytes;
  readonly #pieces: Piece[] = [];
  /** Offset of the first byte of the event that is being written. */
  start = 0;
  /** Offset of the next byte. */
  length = 0;
  /** Offset of the event's end, once `close` was called. */
  end = 0;

  /** Begins an event. */
  begin(): void {
    this.start = this.length;
  }

  /** The event is written; so many bytes follow that belong to it and are no part of it. */
  close(more: number): void {
    this.reserve(more);
    this.end = this.length;
  }

  /** Makes sure that so many bytes can be written. The event may move: `bytes`, `start` and `length` are others then. */
  reserve(bytes: number): void {
    if (this.length + bytes > this.bytes.length) this.#move(bytes);
  }

  /** Writes `from[start, end)` as it is; meant for few bytes. */
  copy(from: Uint8Array, start = 0, end = from.length): void {
    this.reserve(end - start);
    const { bytes } = this;
    let at = this.length;
    for (let i = start; i < end; i++) bytes[at++] = from[i] as number;
    this.length = at;
  }

  /** Writes bytes as they are; meant for many. */
  append(from: Uint8Array): void {
    this.reserve(from.length);
    this.bytes.set(from, this.length);
    this.length += from.length;
  }

  /** Writes a text as UTF-8. */
  text(text: string): void {
    // Most a UTF-16 unit can take.
    this.reserve(text.length * 3);
    this.length += this.bytes.write(text, this.length);
  }

  /** Writes a text of ASCII; meant for short ones. */
  ascii(text: string): void {
    this.reserve(text.length);
    const { bytes } = this;
    let at = this.length;
    for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
    this.length = at;
  }

  /** Writes a safe whole number that is not negative, with at least so many digits. */
  number(value: number, digits = 1): void {
    if (value > 0x7fffffff) {
      const upper = Math.floor(value / 1e9);
      this.number(upper, Math.max(1, digits - 9));
      this.number(value - upper * 1e9, 9);
      return;
    }
    let width = digits;
    while (width < 10 && value >= (POWERS[width] as number)) width++;
    this.reserve(width);
    const { bytes } = this;
    let rest = value | 0;
    for (let at = this.length + width - 1; at >= this.length; at--) {
      const tenth = (rest / 10) | 0;
      bytes[at] = 0x30 + rest - tenth * 10;
      rest = tenth;
    }
    this.length += width;
  }

  /** Writes an unsigned number of 32 bits as upper-case hexadecimal digits: as few as it has, or all eight. */
  hex(value: number, all = false): void {
    this.reserve(8);
    const { bytes } = this;
    let at = this.length;
    for (let shift = all ? 28 : 28 - (Math.clz32(value | 1) & ~3); shift >= 0; shift -= 4) {
      const digit = (value >>> shift) & 15;
      bytes[at++] = digit < 10 ? 0x30 + digit : 0x37 + digit;
    }
    this.length = at;
  }

  #move(bytes: number): void {
    const open = this.length - this.start;
    if (open + bytes > constants.MAX_STRING_LENGTH) throw new EventTooLong();
    const piece = this.#free(open + bytes);
    this.bytes.copy(piece.bytes, 0, this.start, this.length);
    this.piece = piece;
    this.bytes = piece.bytes;
    this.start = 0;
    this.length = open;
  }

  #free(bytes: number): Piece {
    if (bytes > PIECE_BYTES / 4) return { bytes: Buffer.allocUnsafeSlow(bytes * 2), held: 0 };
    const free = this.#pieces.find((piece) => piece.held === 0 && piece !== this.piece);
    if (free) return free;
    const piece = { bytes: Buffer.allocUnsafeSlow(PIECE_BYTES), held: 0 };
    if (this.#pieces.length >= PIECES) this.#pieces.shift();
    this.#pieces.push(piece);
    return piece;
  }
}
