import type { Duplex } from "node:stream";
import type pg from "pg";
import { quoteIdentifier } from "../../../change/sql-identifier.ts";
import { disconnect } from "./connection.ts";
import { CopyBoth } from "./copy-both.ts";
import type { CopyFrames } from "./copy-frames.ts";
import { ReadPace } from "./read-pace.ts";

/** Time that the server may take to end a copy that we end, before the link is cut. */
const FINISH_DEADLINE_MS = 2000;
/** More than this is not read from the socket before what came is taken (a message may be larger). */
const UNREAD_BYTES = 1024 * 1024;

/**
 * One running START_REPLICATION: frames in, status updates out. Reading is pulling: while nobody calls `read`, the
 * socket fills up and the server waits, and writing works all the same.
 */
export class ReplicationLink {
  /** Process id of our walsender. */
  readonly pid: number;
  readonly #client: pg.Client;
  readonly #copy: CopyBoth;
  readonly #started = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<void>();
  readonly #pace = new ReadPace(performance.now());
  #failure: Error | undefined;
  #ended = false;
  /** Something came since a read found nothing. */
  #fresh = false;
  /** More than `UNREAD_BYTES` wait: the socket is not read. */
  #full = false;
  #pause: NodeJS.Timeout | undefined;
  #wake: (() => void) | undefined;
  #waking: NodeJS.Immediate | undefined;

  private constructor(client: pg.Client, text: string) {
    this.#client = client;
    this.pid = (client as pg.Client & { processID: number }).processID;
    const fail = (error: Error) => {
      this.#failure ??= error;
      this.#started.reject(error);
      this.#finished.resolve();
      this.#wake?.();
    };
    this.#started.promise.catch(() => {});
    this.#copy = new CopyBoth(text, {
      onStart: () => this.#started.resolve(),
      onArrival: (bytes) => this.#arrived(bytes),
      onEnd: () => {
        this.#ended = true;
      },
      onFinish: () => this.#finished.resolve(),
      onError: fail,
    });
    client.on("error", fail);
    client.on("end", () => fail(new Error("the server closed the connection")));
  }

  /**
   * Starts streaming from where the slot stands. `client` is a replication session and belongs to the link from here
   * on. `firstMessage` goes out as soon as the server agrees, which is what the promise waits for.
   *
   * @throws the server's error, for instance that the slot is active (55006).
   */
  static async start(
    client: pg.Client,
    { slot, publication, firstMessage }: { slot: string; publication: string; firstMessage: Buffer },
  ): Promise<ReplicationLink> {
    const link = new ReplicationLink(client, startReplication(slot, publication));
    client.query(link.#copy);
    await link.#started.promise;
    link.#copy.send(firstMessage);
    return link;
  }

  /** Moves `frames` to the next frame; false when none has arrived. */
  read(): boolean {
    if (this.#failure) return false;
    if (this.#copy.next()) return true;
    this.#fresh = false;
    return false;
  }

  /** The content of the frame at hand: `buffer` at `[start, end)`, which stays what it is. */
  get frames(): Pick<CopyFrames, "buffer" | "start" | "end"> {
    return this.#copy.frames;
  }

  /**
   * Waits until `read` may have something.
   * @throws the error that ended the link.
   */
  async arrival(): Promise<void> {
    if (!this.#failure && !this.#ended && !this.#fresh) {
      this.#look();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#failure) throw this.#failure;
    if (this.#ended) throw new Error("the server ended the stream");
  }

  /** Lets the socket be read: now, or under load after a moment. */
  #look(): void {
    const socket = this.#client.connection.stream;
    if (this.#full) {
      this.#full = false;
      socket.resume();
      return;
    }
    const pauseMs = this.#pause === undefined ? this.#pace.pauseMs(performance.now()) : 0;
    if (pauseMs === 0) return;
    socket.pause();
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      socket.resume();
    }, pauseMs);
  }

  #arrived(bytes: number): void {
    this.#fresh = true;
    this.#pace.arrived(bytes);
    if (this.#copy.frames.bytes > UNREAD_BYTES) {
      this.#full = true;
      this.#client.connection.stream.pause();
    }
    // Not before all that is there now has been read.
    if (this.#wake)
      this.#waking ??= setImmediate(() => {
        this.#waking = undefined;
        this.#wake?.();
      });
  }

  /** Lets `arrival` return now, with or without something to read. */
  interrupt(): void {
    this.#wake?.();
  }

  /** Bytes that ever arrived on the socket. */
  get bytesRead(): number {
    return (this.#client.connection.stream as Duplex & { bytesRead?: number }).bytesRead ?? 0;
  }

  /** Sends a status update, now; lost without a word when the link is down. */
  send(message: Buffer): void {
    if (!this.#failure && !this.#ended) this.#copy.send(message);
  }

  /** Cuts the link; who waits for an arrival gets `reason`. */
  destroy(reason: Error): void {
    this.#failure ??= reason;
    clearTimeout(this.#pause);
    this.#client.connection.stream.destroy();
    this.#wake?.();
  }

  /** Ends the copy in order, so that the slot is free at once; cuts the link when the server does not follow. */
  async finish(): Promise<void> {
    if (!this.#failure && !this.#ended) {
      clearTimeout(this.#pause);
      const cut = setTimeout(() => this.#finished.resolve(), FINISH_DEADLINE_MS);
      // What still comes is not ours to handle: it was not acknowledged and comes again.
      this.#copy.end();
      // Finished: the server has answered all of it and let the slot go.
      await this.#finished.promise;
      clearTimeout(cut);
    }
    this.#failure ??= new Error("the link was closed");
    await disconnect(this.#client);
  }
}

function startReplication(slot: string, publication: string): string {
  const names = quoteIdentifier(publication).replaceAll("'", "''");
  // 0/0: the server starts from the slot's own confirmed LSN, never from a later one of ours.
  return `START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (proto_version '1', publication_names '${names}', messages 'true')`;
}
