import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { Readable } from "node:stream";

/** A call to an emulator that speaks JSON, with its whole body, before the emulator has seen it. */
export interface JsonCall {
  /** The name behind the dot of `x-amz-target`: `PutItem`. */
  readonly operation: string;
  readonly body: Buffer;
  readonly response: ServerResponse;
  /** Hands the call on to the emulator; with another body, if one is given. */
  readonly pass: (body?: Buffer) => void;
}

/** Puts a function before an emulator: it gets every call, or those that `only` chooses, and passes it on or answers it. */
export function interceptCalls(
  server: Server,
  onCall: (call: JsonCall) => void,
  only: (operation: string) => boolean = () => true,
): void {
  const listeners = server.listeners("request") as ((request: unknown, response: unknown) => void)[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const handOn = (given: unknown) => {
      for (const listener of listeners) listener.call(server, given, response);
    };
    const operation = String(request.headers["x-amz-target"] ?? "").split(".")[1] ?? "";
    if (!only(operation)) return handOn(request);
    const chunks: Buffer[] = [];
    request.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      onCall({ operation, body, response, pass: (given = body) => handOn(replayed(request, given)) });
    });
  });
}

/** The request once more, with its body to be read. */
function replayed(request: IncomingMessage, body: Buffer): Readable {
  const { method, url, headers, rawHeaders, httpVersion, socket } = request;
  return Object.assign(Readable.from([body], { objectMode: false }), {
    ...{ method, url, headers, rawHeaders, httpVersion, socket },
  });
}
