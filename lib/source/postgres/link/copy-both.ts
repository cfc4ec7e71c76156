import type { Socket } from "node:net";
import type pg from "pg";
import { CopyFrames } from "./copy-frames.ts";

type DataListener = (data: Buffer) => void;

/** The connection of a client of `pg`: undocumented, held by the tests of the link. */
interface ClientConnection {
  readonly stream: Socket;
  query(text: string): void;
}

/** Callbacks of a copy. */
export interface CopyBothEvents {
  /** The server agrees: copying has begun. */
  onStart(): void;
  /** So many bytes came, which may make a frame whole. */
  onArrival(bytes: number): void;
  /** The server has ended the copy. */
  onEnd(): void;
  /** The statement is over and the session may be used for another. */
  onFinish(): void;
  onError(error: Error): void;
}

const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
const COPY_BOTH = 0x57;
const ERROR = 0x45;

/**
 * A statement that copies in both directions, as START_REPLICATION does, for `client.query`. It reads the session's socket
 * itself as long as it copies: messages are taken out of the read buffers where they lie, without a buffer or an event
 * for each. What is not of the copy goes to `pg`, as ever.
 * https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
 */
export class CopyBoth implements pg.Submittable {
  /** Frames that have come; `next` is to be called here, for it looks at every message. */
  readonly frames = new CopyFrames();
  readonly #text: string;
  readonly #events: CopyBothEvents;
  #socket: Socket | undefined;
  #pg: DataListener | undefined;
  #started = false;
  #ending = false;
  #ended = false;

  constructor(text: string, events: CopyBothEvents) {
    this.#text = text;
    this.#events = events;
  }

  /** Called by `pg` when it is this statement's turn. */
  submit(connection: unknown): void {
    const { stream } = connection as ClientConnection;
    const [listener, ...more] = stream.listeners("data") as DataListener[];
    if (listener === undefined || more.length > 0) throw new Error("pg reads its socket in another way");
    this.#socket = stream;
    this.#pg = listener;
    stream.off("data", listener);
    stream.on("data", this.#onData);
    (connection as ClientConnection).query(this.#text);
  }

  /**
   * Moves `frames` to the content of the next CopyData message, or says that none is whole yet.
   * @throws RangeError for what is no message.
   */
  next(): boolean {
    const { frames } = this;
    while (!this.#ended && frames.next()) {
      switch (frames.type) {
        case COPY_DATA:
          return true;
        case COPY_BOTH:
          this.#started = true;
          this.#events.onStart();
          break;
        case COPY_DONE:
          this.#release();
          this.#events.onEnd();
          return false;
        case ERROR:
          this.#release();
          return false;
        default:
          // A notice, a changed setting.
          this.#pg?.(Buffer.from(frames.message));
      }
    }
    return false;
  }

  /** Sends a message inside the copy. */
  send(content: Buffer): void {
    const message = Buffer.allocUnsafe(5 + content.length);
    message[0] = COPY_DATA;
    message.writeUInt32BE(4 + content.length, 1);
    content.copy(message, 5);
    this.#socket?.write(message);
  }

  /** Ends the copy from our side; what still comes is thrown away. */
  end(): void {
    this.#ending = true;
    this.#socket?.write(Buffer.from([COPY_DONE, 0, 0, 0, 4]));
    this.#drop();
    this.#socket?.resume();
  }

  readonly #onData = (data: Buffer): void => {
    this.frames.push(data);
    // Nobody reads before the copy has begun, nor when it is to end.
    if (!this.#started || this.#ending) this.#drop();
    else this.#events.onArrival(data.length);
  };

  #drop(): void {
    try {
      while (this.next() && this.#ending);
    } catch (error) {
      this.#events.onError(error as Error);
    }
  }

  /** Gives the socket back to `pg`, with the message at hand and what came behind it. */
  #release(): void {
    this.#ended = true;
    const socket = this.#socket as Socket;
    const listener = this.#pg as DataListener;
    socket.off("data", this.#onData);
    socket.on("data", listener);
    listener(this.frames.rest());
    socket.resume();
  }

  handleError(error: Error): void {
    this.#events.onError(error);
  }

  handleCommandComplete(): void {}

  handleCopyData(): void {}

  handleReadyForQuery(): void {
    this.#events.onFinish();
  }
}
