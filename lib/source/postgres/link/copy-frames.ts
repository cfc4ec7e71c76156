/** Type and length of a message. */
const HEADER = 5;

/**
 * Messages of the protocol in what a socket gave: `next` moves to the next whole one, which stands in `buffer` at `[start, end)`
 * until the next call. Nothing is copied but a message that came in several pieces, once.
 * https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS
 */
export class CopyFrames {
  /** The byte that says what message it is. */
  type = 0;
  buffer: Buffer = Buffer.alloc(0);
  /** Bounds of its content. */
  start = 0;
  end = 0;
  /** Chunks that came behind `buffer`, oldest first, and their length in bytes. */
  #pieces: Buffer[] = [];
  #waiting = 0;

  /** Takes what came. Keeps it. */
  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#waiting += piece.length;
  }

  /** Bytes that came and were not passed yet. */
  get bytes(): number {
    return this.buffer.length - this.end + this.#waiting;
  }

  /** Moves to the next message, if it is whole. @throws RangeError when its length cannot be one. */
  next(): boolean {
    if (!this.#gather(HEADER)) return false;
    const length = this.buffer.readUInt32BE(this.end + 1);
    if (length < 4) throw new RangeError(`a message of the server says that its length is ${length}`);
    if (!this.#gather(1 + length)) return false;
    this.type = this.buffer[this.end] as number;
    this.start = this.end + HEADER;
    this.end += 1 + length;
    return true;
  }

  /** The message at hand, with its header. */
  get message(): Buffer {
    return this.buffer.subarray(this.start - HEADER, this.end);
  }

  /** The message at hand and all that came behind it; nothing is left. */
  rest(): Buffer {
    const rest = Buffer.concat([this.buffer.subarray(this.start - HEADER), ...this.#pieces]);
    this.buffer = Buffer.alloc(0);
    this.start = this.end = 0;
    this.#pieces = [];
    this.#waiting = 0;
    return rest;
  }

  /** Returns true if so many bytes stand behind `end` in `buffer`: pieces are joined for that, no more than it needs. */
  #gather(bytes: number): boolean {
    const here = this.buffer.length - this.end;
    if (here >= bytes) return true;
    if (here + this.#waiting < bytes) return false;
    if (here === 0 && (this.#pieces[0] as Buffer).length >= bytes) {
      this.buffer = this.#pieces.shift() as Buffer;
      this.#waiting -= this.buffer.length;
    } else {
      const joined = [this.buffer.subarray(this.end)];
      for (let length = here; length < bytes; ) {
        const piece = this.#pieces.shift() as Buffer;
        joined.push(piece);
        length += piece.length;
        this.#waiting -= piece.length;
      }
      this.buffer = Buffer.concat(joined);
    }
    this.end = 0;
    return true;
  }
}
