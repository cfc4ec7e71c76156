import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { CopyDataScanner, StartupScanner } from "./postgres-frames.ts";

/** The end of a link: `rst` loses what is under way, `fin` is an orderly end in a disorderly place. */
export type Cut = "rst" | "fin";

/** Speed of the bytes that go through, each direction by itself. */
export interface Slowness {
  readonly bytesPerSecond?: number;
  /** Each read waits this long before it goes on. */
  readonly delayMs?: number;
}

const REOPEN_DEADLINE_MS = 30_000;

/**
 * A TCP proxy in front of PostgreSQL that breaks links on demand: one link, those of a kind, or those to come.
 * It listens on 127.0.0.1. Bytes pass unchanged until a fault is asked for.
 *
 * @example
 * const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 5432 });
 * const url = proxy.urlFor("postgres://me@127.0.0.1:5432/shop");
 * proxy.onLink = (link) => link.replication && link.cutInsideCopyData(100);
 */
export class TcpFaultProxy {
  readonly host = "127.0.0.1";
  /** Stays the same while the proxy refuses. */
  readonly port: number;
  /** Called for each new link when its startup packet has come, before it goes on to the server. */
  onLink: ((link: FaultLink) => unknown) | undefined;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #links = new Set<FaultLink>();
  #server: Server | undefined;

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#target = target;
    this.port = (server.address() as AddressInfo).port;
    this.#adopt(server);
  }

  /** Listens on a free port and connects each caller on to `target`. */
  static async start(target: { readonly host: string; readonly port: number }): Promise<TcpFaultProxy> {
    return new TcpFaultProxy(await listen(0), target);
  }

  /** Links that are open now, oldest first. */
  get links(): readonly FaultLink[] {
    return [...this.#links];
  }

  /** The links that carry a replication stream (or may start one). */
  get replicationLinks(): readonly FaultLink[] {
    return this.links.filter((link) => link.replication);
  }

  /** The same database URL, led through the proxy. */
  urlFor(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    url.hostname = this.host;
    url.port = String(this.port);
    return url.toString();
  }

  /** New callers get "connection refused"; open links stay as they are. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    server.close();
    // `close` waits for the open links too, which are none of its business here.
    server.unref();
    await delay(0);
  }

  /** Takes callers again, on the same port. */
  async accept(): Promise<void> {
    if (this.#server) return;
    const deadline = performance.now() + REOPEN_DEADLINE_MS;
    for (;;) {
      try {
        this.#adopt(await listen(this.port));
        return;
      } catch (error) {
        // Someone's outgoing connection may sit on the port for a moment.
        if (performance.now() > deadline) throw error;
        await delay(50);
      }
    }
  }

  /** Cuts every link and closes the port. Idempotent. */
  async stop(): Promise<void> {
    await this.refuse();
    for (const link of this.#links) link.cut("rst");
  }

  #adopt(server: Server): void {
    this.#server = server;
    server.on("connection", (client) => {
      const link = new FaultLink(client, this.#target, () => this.onLink?.(link));
      this.#links.add(link);
      void link.closed.then(() => this.#links.delete(link));
    });
  }
}

/** One connection through the proxy. */
export class FaultLink {
  /** Resolves when both sides are closed. */
  readonly closed: Promise<void>;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #startup = new StartupScanner();
  readonly #copyData = new CopyDataScanner();
  #fromServer = 0;
  #copyDataMessages = 0;
  #cutAtByte = Number.POSITIVE_INFINITY;
  #cutInsideMessage = Number.POSITIVE_INFINITY;
  #cutHow: Cut = "rst";
  #swallowing = false;
  #slowness: Slowness = {};

  constructor(client: Socket, target: { host: string; port: number }, started: () => void) {
    this.#client = client;
    this.#server = connect({ ...target, allowHalfOpen: true, noDelay: true });
    client.setNoDelay(true);
    const both = [this.#client, this.#server];
    for (const socket of both) socket.on("error", () => this.cut("rst"));
    // Not `once`, which would fail with the error that comes before the close.
    const ends = both.map((socket) => new Promise<void>((resolve) => socket.on("close", () => resolve())));
    this.closed = Promise.all(ends).then(() => {});
    void this.#pump(this.#client, this.#server, (chunk) => this.#passToServer(chunk, started));
    void this.#pump(this.#server, this.#client, (chunk) => this.#passToClient(chunk));
  }

  /** True if the startup packet asked for replication. False while it is not known, and under TLS. */
  get replication(): boolean {
    return this.#startup.replication === true;
  }

  /** Bytes that came from the server. */
  get bytesFromServer(): number {
    return this.#fromServer;
  }

  /** CopyData messages that came from the server: changes and keepalives. Not counted under TLS. */
  get copyDataFromServer(): number {
    return this.#copyDataMessages;
  }

  /** Ends the link on both sides now. */
  cut(how: Cut = "rst"): void {
    for (const socket of [this.#client, this.#server]) {
      if (how === "rst") {
        if (!socket.destroyed) socket.resetAndDestroy();
      } else {
        socket.end();
        // Nothing more is passed on; the end must not wait for the other's.
        socket.resume();
        socket.once("finish", () => socket.destroy());
      }
    }
  }

  /** From now on bytes and ends of both sides vanish, and both sides stay open: a dead network path. */
  halfOpen(): void {
    this.#swallowing = true;
  }

  /** Slows both directions; `{}` ends it. */
  slow(slowness: Slowness): void {
    this.#slowness = slowness;
  }

  /** Cuts when exactly `bytes` more have gone from the server to the client. */
  cutAfterBytes(bytes: number, how: Cut = "rst"): void {
    this.#cutAtByte = this.#fromServer + bytes;
    this.#cutHow = how;
  }

  /** Cuts in the middle of the `n`-th CopyData message from now, counted from 1. */
  cutInsideCopyData(n: number, how: Cut = "rst"): void {
    this.#cutInsideMessage = this.#copyDataMessages + n;
    this.#cutHow = how;
  }

  async #pump(from: Socket, to: Socket, pass: (chunk: Buffer) => Promise<void>): Promise<void> {
    try {
      for await (const chunk of from) {
        const { delayMs } = this.#slowness;
        if (delayMs) await delay(delayMs);
        if (!this.#swallowing) await pass(chunk as Buffer);
      }
      if (!this.#swallowing) to.end();
      else await once(to, "close");
    } catch {
      // The socket's own error handler has cut the link.
    }
  }

  async #passToServer(chunk: Buffer, started: () => void): Promise<void> {
    if (this.#startup.replication === undefined) {
      const before = this.#startup.encryptionRequests;
      if (this.#startup.take(chunk)) started();
      for (let i = before; i < this.#startup.encryptionRequests; i++) this.#copyData.expectEncryptionAnswer();
    }
    await this.#write(this.#server, chunk);
  }

  async #passToClient(chunk: Buffer): Promise<void> {
    this.#copyData.take(chunk, (offset, length) => {
      this.#copyDataMessages++;
      if (this.#copyDataMessages === this.#cutInsideMessage) {
        this.#cutAtByte = offset + Math.max(5, Math.floor(length / 2));
      }
    });
    const left = this.#cutAtByte - this.#fromServer;
    this.#fromServer += chunk.length;
    if (chunk.length < left) return await this.#write(this.#client, chunk);
    if (left > 0) await this.#write(this.#client, chunk.subarray(0, left));
    // A reset overtakes bytes that the client's kernel has not got yet.
    await delay(this.#cutHow === "rst" ? 5 : 0);
    this.cut(this.#cutHow);
  }

  async #write(to: Socket, chunk: Buffer): Promise<void> {
    const rate = this.#slowness.bytesPerSecond;
    if (rate === undefined) return await written(to, chunk);
    const step = Math.max(1, Math.ceil(rate / 20));
    for (let i = 0; i < chunk.length && !this.#swallowing; i += step) {
      // Healed in the middle: the rest goes at once.
      if (this.#slowness.bytesPerSecond === undefined) return await written(to, chunk.subarray(i));
      await written(to, chunk.subarray(i, i + step));
      await delay((1000 * step) / rate);
    }
  }
}

/** Resolves when the kernel has the bytes: back-pressure of one side reaches the other. */
function written(to: Socket, chunk: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    if (to.destroyed) reject(new Error("the link was cut"));
    else to.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

async function listen(port: number): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: false });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}
