import type { Duplex } from "node:stream";
import type pg from "pg";
import { both } from "pg-copy-streams";
import { disconnect } from "./connection.ts";

declare module "pg-copy-streams" {
  /** A copy in both directions: what START_REPLICATION opens. */
  export function both(
    text: string,
    options: { alignOnCopyDataFrame: true; readableObjectMode: true; readableHighWaterMark: number },
  ): Duplex & pg.Submittable;
}

/** How long the server may take to end a copy that we end, before the link is cut. */
const FINISH_DEADLINE_MS = 2000;

/**
 * One running START_REPLICATION: frames in, status updates out. Reading is pulling: while nobody calls `read`, the
 * socket fills up and the server waits, and writing works all the same.
 */
export class ReplicationLink {
  /** Process id of our walsender. */
  readonly pid: number;
  readonly #client: pg.Client;
  readonly #copy: Duplex;
  #failure: Error | undefined;
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor(client: pg.Client, copy: Duplex) {
    this.#client = client;
    this.#copy = copy;
    this.pid = (client as pg.Client & { processID: number }).processID;
    copy.on("readable", () => this.#wake?.());
    copy.on("end", () => {
      this.#ended = true;
      this.#wake?.();
    });
    const fail = (error: Error) => {
      this.#failure ??= error;
      // The stream has let go of its buffers: it must not be asked to read again.
      copy.destroy();
      this.#wake?.();
    };
    copy.on("error", fail);
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
    const copy = both(startReplication(slot, publication), {
      alignOnCopyDataFrame: true,
      // Frames stay apart in object mode only; one in the buffer is enough, the socket has a buffer of its own.
      readableObjectMode: true,
      readableHighWaterMark: 1,
    });
    const link = new ReplicationLink(client, copy);
    client.query(copy);
    // The stream holds writes back until the server has answered CopyBothResponse.
    await new Promise<void>((resolve, reject) => {
      const settle = () => (link.#failure ? reject(link.#failure) : undefined);
      link.#wake = settle;
      copy.write(firstMessage, (error) => (error ? reject(error) : resolve()));
    }).finally(() => {
      link.#wake = undefined;
    });
    return link;
  }

  /** The next frame, or undefined when none has arrived. A view on a read buffer of its own: valid as long as it is held. */
  read(): Buffer | undefined {
    if (this.#failure) return undefined;
    return (this.#copy.read() as Buffer | null) ?? undefined;
  }

  /**
   * Waits until `read` may have something.
   * @throws the error that ended the link.
   */
  async arrival(): Promise<void> {
    if (!this.#failure && !this.#ended && this.#copy.readableLength === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#failure) throw this.#failure;
    if (this.#ended && this.#copy.readableLength === 0) throw new Error("the server ended the stream");
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
    if (!this.#failure && !this.#ended && this.#copy.writable) this.#copy.write(message);
  }

  /** Cuts the link; who waits for an arrival gets `reason`. */
  destroy(reason: Error): void {
    this.#failure ??= reason;
    this.#client.connection.stream.destroy();
    this.#wake?.();
  }

  /** Ends the copy in order, so that the slot is free at once; cuts the link when the server does not follow. */
  async finish(): Promise<void> {
    if (!this.#failure && !this.#ended) {
      await new Promise<void>((resolve) => {
        const cut = setTimeout(resolve, FINISH_DEADLINE_MS);
        const done = () => {
          clearTimeout(cut);
          resolve();
        };
        // Finished: the server has answered all of it and let the slot go.
        this.#copy.once("finish", done).once("error", done).once("close", done);
        this.#copy.end();
        // What still comes is not ours to handle: it was not acknowledged and comes again.
        this.#copy.removeAllListeners("readable");
        this.#copy.resume();
      });
    }
    this.#failure ??= new Error("the link was closed");
    await disconnect(this.#client);
  }
}

function startReplication(slot: string, publication: string): string {
  const names = `"${publication.replaceAll('"', '""')}"`.replaceAll("'", "''");
  // 0/0: the server starts from the slot's own confirmed LSN, never from a later one of ours.
  return `START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (proto_version '1', publication_names '${names}', messages 'true')`;
}
