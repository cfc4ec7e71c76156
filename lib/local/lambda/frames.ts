import type { Writable } from "node:stream";

/*
 * Messages between the host and a function's process, over a pipe of their own: the handler's standard output stays
 * free, and an event of megabytes is written as bytes instead of being cloned.
 * A frame: 4 bytes length of head, 4 bytes length of body (big endian), head as JSON, body as it is.
 */
const PREFIX_BYTES = 8;

/** Writes one frame; a closed pipe is not an error here, the reader's side sees the process end. */
export function writeFrame(pipe: Writable, head: unknown, body: Buffer = Buffer.alloc(0)): void {
  const headBytes = Buffer.from(JSON.stringify(head), "utf8");
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(headBytes.length, 0);
  prefix.writeUInt32BE(body.length, 4);
  pipe.write(Buffer.concat([prefix, headBytes]));
  if (body.length > 0) pipe.write(body);
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
