import type { AddressInfo } from "node:net";
import { connect, createServer, type Server, type Socket } from "node:net";

const COPY_DATA = 0x64;
const KEEPALIVE = 0x6b;
const WAL_DATA = 0x77;
const INSERT = 0x49;

interface Filter {
  readonly port: number;
  /** Keepalives dropped, or added. */
  readonly count: () => number;
  readonly stop: () => void;
}

/** A TCP proxy that swallows the keepalives of replication streams; everything else passes. */
export async function withoutKeepalives(port: number): Promise<Filter> {
  return filter(port, (message) => (isCopyData(message, KEEPALIVE) ? [] : [message]));
}

/** A TCP proxy that lets a keepalive follow each insert, as the server may send it inside a transaction. */
export async function withKeepalivesInside(port: number): Promise<Filter> {
  return filter(port, (message) =>
    isCopyData(message, WAL_DATA) && message[30] === INSERT ? [message, keepalive(message)] : [message],
  );
}

function isCopyData(message: Buffer, kind: number): boolean {
  return message[0] === COPY_DATA && message[5] === kind;
}

/** Says what the message before it said of the end of the log. */
function keepalive(data: Buffer): Buffer {
  const message = Buffer.alloc(23);
  message[0] = COPY_DATA;
  message.writeInt32BE(22, 1);
  message[5] = KEEPALIVE;
  data.copy(message, 6, 14, 22);
  return message;
}

/** Each message of the server as what `change` makes of it. */
async function filter(port: number, change: (message: Buffer) => readonly Buffer[]): Promise<Filter> {
  let count = 0;
  const sockets = new Set<Socket>();
  const server: Server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket
        .on("error", () => {})
        .on("close", () => {
          client.destroy();
          upstream.destroy();
          sockets.delete(socket);
        });
    }
    client.pipe(upstream);
    let bytes = Buffer.alloc(0);
    upstream.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 6) {
        const length = 1 + bytes.readInt32BE(1);
        if (bytes.length < length) return;
        const passed = change(bytes.subarray(0, length));
        if (passed.length !== 1) count++;
        for (const message of passed) client.write(message);
        bytes = bytes.subarray(length);
      }
      if (bytes.length === 5 && bytes.readInt32BE(1) === 4) {
        client.write(bytes);
        bytes = Buffer.alloc(0);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    count: () => count,
    stop: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
