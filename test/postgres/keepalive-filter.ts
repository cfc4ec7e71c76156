import type { AddressInfo } from "node:net";
import { connect, createServer, type Server, type Socket } from "node:net";

const COPY_DATA = 0x64;
const KEEPALIVE = 0x6b;

/** A TCP proxy that swallows the keepalives of replication streams; everything else passes. */
export async function withoutKeepalives(
  port: number,
): Promise<{ port: number; dropped: () => number; stop: () => void }> {
  let dropped = 0;
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
        if (bytes[0] === COPY_DATA && bytes[5] === KEEPALIVE) dropped++;
        else client.write(bytes.subarray(0, length));
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
    dropped: () => dropped,
    stop: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
