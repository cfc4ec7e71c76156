import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";

/** A way to a server of this machine by an address that does not look like it. */
export async function throughAnotherAddress(port: number, url: string) {
  const address = Object.values(networkInterfaces())
    .flat()
    .find((one) => one?.family === "IPv4" && !one.internal)?.address;
  if (address === undefined) throw new Error("this machine has no address but its own");
  const relay = createServer((socket) => {
    const there = connect(port, "127.0.0.1");
    socket.pipe(there).pipe(socket);
    for (const end of [socket, there]) end.on("error", () => end.destroy());
  }).listen(0, address);
  await once(relay, "listening");
  const through = new URL(url);
  through.hostname = address;
  through.port = String((relay.address() as AddressInfo).port);
  through.searchParams.set("sslmode", "disable");
  return { url: through.href, close: async () => void relay.close() };
}
