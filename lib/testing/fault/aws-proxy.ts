import {
  Agent,
  createServer,
  type IncomingHttpHeaders,
  request,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** A call of an AWS client as it passes the proxy. */
export interface AwsCall {
  /** `kinesis`, `dynamodb` or `sqs`; `unknown` for a protocol without the target header. */
  readonly service: string;
  /** `PutRecords`, `UpdateItem`, …; empty where unknown. */
  readonly operation: string;
  /** The body, when it is JSON. */
  readonly body: unknown;
  /** Place among the calls that passed, from 1. */
  readonly number: number;
}

/** A fault of one call. */
export type AwsFault =
  /** Refused with an AWS error; the endpoint does not see the call. */
  | { readonly kind: "error"; readonly status: number; readonly code: string; readonly message?: string }
  /** The connection is cut; the endpoint does not see the call. */
  | { readonly kind: "cut" }
  /** The endpoint carries the call out; then `meanwhile` runs and the connection is cut. */
  | { readonly kind: "loseAnswer"; readonly meanwhile?: () => unknown }
  /** The connection is cut, and the endpoint sees the call only that much later: behind its own retry. */
  | { readonly kind: "late"; readonly ms: number }
  /** The endpoint carries the call out twice; the second answer is given. */
  | { readonly kind: "duplicate" }
  /** The call reaches the endpoint that much later. */
  | { readonly kind: "slow"; readonly ms: number }
  /** No answer ever, no end of the connection; the endpoint does not see the call. */
  | { readonly kind: "hang" }
  /** The endpoint sees another body (undefined: nothing), and the client another answer. */
  | {
      readonly kind: "rewrite";
      readonly body: unknown;
      readonly answer: (answer: unknown) => unknown;
    };

/** Chooses the fault of a call; undefined lets it pass. */
export type ChooseFault = (call: AwsCall) => AwsFault | undefined;

/** Settings of `AwsFaultProxy.start`. */
export interface AwsFaultProxyOptions {
  /** `http://…` of the AWS endpoint behind it: one service or all of them. */
  readonly target: string;
  readonly choose: ChooseFault;
  /** Called before the endpoint's own answer is given to the client; not for errors made here and lost answers. */
  readonly onAnswer?: (call: AwsCall, status: number, body: Buffer) => void;
  /** Called when a call is over: answered, cut or given up by the client. */
  readonly onEnd?: (call: AwsCall) => void;
}

/**
 * An HTTP proxy in front of an AWS endpoint that goes wrong on demand: point a client's endpoint at it. Signatures are
 * passed on as they are, so the endpoint must be an emulator. Listens on 127.0.0.1.
 *
 * @example
 * const proxy = await AwsFaultProxy.start({
 *   target: process.env.AWS_ENDPOINT_URL_KINESIS,
 *   choose: ({ operation, number }) =>
 *     operation === "PutRecords" && number % 10 === 0 ? { kind: "loseAnswer" } : undefined,
 * });
 */
export class AwsFaultProxy {
  readonly #options: AwsFaultProxyOptions;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sockets = new Set<Socket>();
  readonly #stopped = new AbortController();
  #calls = 0;

  private constructor(options: AwsFaultProxyOptions) {
    this.#options = options;
    this.#server = createServer((incoming, response) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("error", () => response.destroy());
      incoming.on("end", () => {
        const path = incoming.url ?? "/";
        const call = readCall(incoming.headers, Buffer.concat(chunks), ++this.#calls);
        this.#serve(
          { method: incoming.method ?? "POST", path, headers: incoming.headers, ...call },
          response,
        );
      });
    });
    this.#server.keepAliveTimeout = 0;
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  /** Starts a proxy on a free port. */
  static async start(options: AwsFaultProxyOptions): Promise<AwsFaultProxy> {
    const proxy = new AwsFaultProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(0, "127.0.0.1", resolve);
    });
    return proxy;
  }

  /** The URL that clients take as their endpoint. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cuts every connection and closes the port. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #serve(message: ServedCall, response: ServerResponse): void {
    response.on("close", () => this.#options.onEnd?.(message.call));
    this.#carryOut(message, response, this.#options.choose(message.call)).catch(() => response.destroy());
  }

  async #carryOut(message: ServedCall, response: ServerResponse, fault: AwsFault | undefined): Promise<void> {
    switch (fault?.kind) {
      case undefined:
        return this.#answer(message, response, await this.#forward(message));
      case "error": {
        const { status, code, message: text = code } = fault;
        // S3 is the one without a target header, and speaks XML.
        if (message.call.service === "unknown") {
          const body = `<Error><Code>${code}</Code><Message>${text}</Message></Error>`;
          return answer(response, { status, headers: XML_HEADERS, body: Buffer.from(body) });
        }
        return answer(response, {
          status,
          headers: JSON_HEADERS,
          body: json({ __type: code, message: text }),
        });
      }
      case "cut":
        return void response.destroy();
      case "hang":
        return;
      case "loseAnswer":
        await this.#forward(message);
        await fault.meanwhile?.();
        return void response.destroy();
      case "late":
        response.destroy();
        await this.#wait(fault.ms);
        await this.#forward(message);
        return;
      case "duplicate":
        await this.#forward(message);
        return this.#answer(message, response, await this.#forward(message));
      case "slow":
        await this.#wait(fault.ms);
        return this.#answer(message, response, await this.#forward(message));
      case "rewrite":
        return this.#answer(message, response, await this.#rewrite(message, fault));
    }
  }

  #answer(message: ServedCall, response: ServerResponse, given: Answer): void {
    this.#options.onAnswer?.(message.call, given.status, given.body);
    answer(response, given);
  }

  async #rewrite(message: ServedCall, fault: AwsFault & { kind: "rewrite" }): Promise<Answer> {
    if (fault.body === undefined)
      return { status: 200, headers: JSON_HEADERS, body: json(fault.answer(undefined)) };
    const got = await this.#forward({ ...message, body: json(fault.body) });
    if (got.status !== 200) return got;
    return { status: 200, headers: got.headers, body: json(fault.answer(JSON.parse(got.body.toString()))) };
  }

  #forward(message: ServedCall): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { method, path, headers, body } = message;
      const outgoing = request(
        new URL(path, this.#options.target),
        { method, headers: { ...headers, "content-length": body.length }, agent: this.#agent },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
          incoming.on("error", reject);
          incoming.on("end", () =>
            resolve({
              status: incoming.statusCode ?? 502,
              headers: incoming.headers,
              body: Buffer.concat(chunks),
            }),
          );
        },
      );
      outgoing.on("error", reject);
      outgoing.end(body);
    });
  }

  async #wait(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stopped.signal });
  }
}

interface ServedCall {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly call: AwsCall;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

const XML_HEADERS = { "content-type": "application/xml" };
const JSON_HEADERS = { "content-type": "application/x-amz-json-1.1" };

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function answer(response: ServerResponse, { status, headers, body }: Answer): void {
  const { "transfer-encoding": _, connection: __, ...kept } = headers;
  response.writeHead(status, { ...kept, "content-length": body.length }).end(body);
}

/** `x-amz-target: Kinesis_20131202.PutRecords`, `DynamoDB_20120810.…`, `AmazonSQS.…`. */
function readCall(
  headers: IncomingHttpHeaders,
  body: Buffer,
  number: number,
): { body: Buffer; call: AwsCall } {
  const [name = "", operation = ""] = String(headers["x-amz-target"] ?? "").split(".");
  const service = /kinesis|dynamodb|sqs/.exec(name.toLowerCase())?.[0] ?? "unknown";
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString());
  } catch {
    // Not JSON: the chooser sees no body.
  }
  return { body, call: { service, operation, body: parsed, number } };
}
