import { readSync, writeSync } from "node:fs";
import type { Writable } from "node:stream";

/*
 * Messages between the host and a function's process, over a pipe of their own: the handler's standard output stays
 * free, and an event of megabytes is written as bytes instead of being cloned.
 * A frame: 4 bytes length of head, 4 bytes length of body (big endian), head as JSON, body as it is.
 */
const PREFIX_BYTES = 8;

/** Writes one frame to a file descriptor that blocks; where the other side is gone, nothing comes of it. */
export function writeFrameSync(fd: number, head: unknown, body: Buffer = Buffer.alloc(0)): void {
  try {
    for (const bytes of frameOf(head, body)) {
      for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
    }
  } catch (error) {
    if (!GONE.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
}

/** Waits for one frame on a file descriptor that blocks; undefined where the other side is gone. */
export function readFrameSync(fd: number): { head: unknown; body: Buffer } | undefined {
  const prefix = readBytesSync(fd, PREFIX_BYTES);
  if (!prefix) return undefined;
  const headLength = prefix.readUInt32BE(0);
  const rest = readBytesSync(fd, headLength + prefix.readUInt32BE(4));
  if (!rest) return undefined;
  return { head: JSON.parse(rest.toString("utf8", 0, headLength)), body: rest.subarray(headLength) };
}

function readBytesSync(fd: number, length: number): Buffer | undefined {
  const bytes = Buffer.alloc(length);
  try {
    for (let got = 0; got < length; ) {
      const count = readSync(fd, bytes, got, length - got, null);
      if (count === 0) return undefined;
      got += count;
    }
  } catch (error) {
    if (GONE.includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  return bytes;
}

const GONE = ["EPIPE", "ECONNRESET", "EOF"];

/** Writes one frame; a closed pipe is not an error here, the reader's side sees the process end. */
export function writeFrame(pipe: Writable, head: unknown, body: Buffer = Buffer.alloc(0)): void {
  for (const bytes of frameOf(head, body)) pipe.write(bytes);
}

function frameOf(head: unknown, body: Buffer): Buffer[] {
  const headBytes = Buffer.from(JSON.stringify(head), "utf8");
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(headBytes.length, 0);
  prefix.writeUInt32BE(body.length, 4);
  const begin = Buffer.concat([prefix, headBytes]);
  return body.length > 0 ? [begin, body] : [begin];
}

/** Cuts a byte stream back into frames and gives each to `onFrame` (head already parsed, body as bytes). */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;
  readonly #onFrame: (head: unknown, body: Buffer) => void;

  constructor(onFrame: (head: unknown, body: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    while (this.#length >= PREFIX_BYTES) {
      const prefix = this.#joinedAtLeast(PREFIX_BYTES);
      const headLength = prefix.readUInt32BE(0);
      const frameLength = PREFIX_BYTES + headLength + prefix.readUInt32BE(4);
      if (this.#length < frameLength) return;
      const all = this.#joinedAtLeast(frameLength);
      const rest = all.subarray(frameLength);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#length = rest.length;
      const head: unknown = JSON.parse(all.toString("utf8", PREFIX_BYTES, PREFIX_BYTES + headLength));
      this.#onFrame(head, all.subarray(PREFIX_BYTES + headLength, frameLength));
    }
  }

  /** The buffered bytes, the first chunk being at least `bytes` long: joins only when it has to. */
  #joinedAtLeast(bytes: number): Buffer {
    const first = this.#chunks[0] as Buffer;
    if (first.length >= bytes && this.#chunks.length === 1) return first;
    if (first.length >= bytes && bytes === PREFIX_BYTES) return first;
    const joined = Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [joined];
    return joined;
  }
}
