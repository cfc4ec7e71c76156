import { createServer, type Server, type Socket } from "node:net";

/** A request with its body in the pieces that came off the socket: to join them would copy every byte once more. */
export interface PlainRequest {
  readonly path: string;
  /** Value of a header, its name in small letters; empty where it is not there. */
  header(name: string): string;
  readonly body: readonly Buffer[];
}

/** Sends what is answered. */
export type Answer = (status: number, body: string | Uint8Array, contentType?: string) => void;

/** A request whose head has come. */
interface Begun {
  readonly path: string;
  readonly head: string;
  readonly body: Buffer[];
  /** Bytes of the body that have not come yet. */
  missing: number;
}

const END_OF_HEAD = "\r\n\r\n";

/**
 * HTTP/1.1 of the least (https://www.rfc-editor.org/rfc/rfc9112): one request at a time on a connection, a body by its
 * `content-length`. `node:http` takes twice the CPU for bodies of a megabyte, on cores that the measured program needs.
 */
export function plainHttpServer(serve: (request: PlainRequest, answer: Answer) => void): Server {
  return createServer({ noDelay: true }, (socket) => {
    let waiting: Buffer | undefined;
    let begun: Begun | undefined;
    socket.on("error", () => socket.destroy());
    socket.on("data", (piece: Buffer) => {
      if (begun === undefined) {
        waiting = waiting === undefined ? piece : Buffer.concat([waiting, piece]);
        const end = waiting.indexOf(END_OF_HEAD);
        if (end === -1) return;
        begun = begin(waiting.toString("latin1", 0, end));
        piece = waiting.subarray(end + END_OF_HEAD.length);
        waiting = undefined;
      }
      if (piece.length > 0) begun.body.push(piece);
      begun.missing -= piece.length;
      if (begun.missing > 0) return;
      if (begun.missing < 0) {
        socket.destroy(new Error("a request behind one that is not answered yet"));
        return;
      }
      const { path, head, body } = begun;
      begun = undefined;
      serve({ path, body, header: (name) => headerOf(head, name) }, answerOf(socket));
    });
  });
}

function begin(head: string): Begun {
  const path = head.split(" ", 2)[1] ?? "";
  return { path, head, body: [], missing: Number(headerOf(head, "content-length")) };
}

function headerOf(head: string, name: string): string {
  const line = head.split("\r\n").find((line) => line.toLowerCase().startsWith(`${name}:`));
  return line?.slice(name.length + 1).trim() ?? "";
}

function answerOf(socket: Socket): Answer {
  return (status, body, contentType = "application/json") => {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const head = `HTTP/1.1 ${status} ${status === 200 ? "OK" : "Error"}\r\ncontent-type: ${contentType}\r\ncontent-length: ${bytes.length}\r\nx-amzn-requestid: bench`;
    socket.write(Buffer.concat([Buffer.from(head + END_OF_HEAD), bytes]));
  };
}
