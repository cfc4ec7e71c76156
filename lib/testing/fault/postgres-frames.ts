/**
 * Finds the messages of PostgreSQL's protocol in bytes that pass by, without keeping them.
 * https://www.postgresql.org/docs/current/protocol-message-formats.html
 */

const SSL_REQUEST = 80877103;
const GSSENC_REQUEST = 80877104;
/** A real startup packet is smaller; whatever is not one must not be collected for ever. */
const STARTUP_LIMIT = 64 * 1024;

/** Reads the first message of a client. */
export class StartupScanner {
  #bytes = Buffer.alloc(0);
  /** Requests for encryption so far: the server answers each with a single byte outside the message format. */
  encryptionRequests = 0;
  /** Undefined until the startup packet is whole. */
  replication: boolean | undefined;

  /** Takes more bytes of the client; true once the startup packet is whole (or it cannot be one). */
  take(chunk: Buffer): boolean {
    if (this.replication !== undefined) return true;
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    while (this.#bytes.length >= 8) {
      const length = this.#bytes.readInt32BE(0);
      const code = this.#bytes.readInt32BE(4);
      if (length === 8 && (code === SSL_REQUEST || code === GSSENC_REQUEST)) {
        this.encryptionRequests++;
        this.#bytes = this.#bytes.subarray(8);
        continue;
      }
      if (length < 8 || length > STARTUP_LIMIT) {
        this.replication = false;
      } else if (this.#bytes.length >= length) {
        const parameters = this.#bytes.toString("latin1", 8, length).split("\0");
        const at = parameters.findIndex((name, i) => i % 2 === 0 && name === "replication");
        this.replication = at >= 0 && parameters[at + 1] !== "false";
      }
      break;
    }
    return this.replication !== undefined;
  }
}

/** Walks over the server's messages and tells where each CopyData begins and how long it is. */
export class CopyDataScanner {
  readonly #header = Buffer.alloc(5);
  #headerBytes = 0;
  #bodyLeft = 0;
  #single = 0;
  #offset = 0;
  #encrypted = false;

  /** The next byte that begins a message is the answer to a request for encryption. */
  expectEncryptionAnswer(): void {
    this.#single++;
  }

  /** `found` gets the offset of the first byte since the link began, and the length of the whole message. */
  take(chunk: Buffer, found: (offset: number, length: number) => void): void {
    let i = 0;
    while (i < chunk.length && !this.#encrypted) {
      if (this.#bodyLeft > 0) {
        const step = Math.min(this.#bodyLeft, chunk.length - i);
        this.#bodyLeft -= step;
        i += step;
        continue;
      }
      const byte = chunk[i] as number;
      if (this.#single > 0 && this.#headerBytes === 0) {
        this.#single--;
        this.#encrypted = byte !== 0x4e; // "N": stays in the clear
        i++;
        continue;
      }
      this.#header[this.#headerBytes++] = byte;
      i++;
      if (this.#headerBytes < 5) continue;
      this.#headerBytes = 0;
      const length = this.#header.readInt32BE(1);
      this.#bodyLeft = Math.max(0, length - 4);
      if (this.#header[0] === 0x64) found(this.#offset + i - 5, length + 1);
    }
    this.#offset += chunk.length;
  }
}
