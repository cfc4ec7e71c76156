import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a runtime answered: `response` or `error`, and the body. */
export interface RuntimeAnswer {
  readonly kind: string;
  readonly body: unknown;
}

/** The Lambda Runtime API for one runtime: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html */
export class RuntimeApi {
  readonly answers: RuntimeAnswer[] = [];
  readonly #server = createServer();
  readonly #events: unknown[] = [];
  readonly #timeoutMs: number;
  #waiting: ServerResponse | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#server.on("request", async (request, response) => {
      const [, id, kind] = /invocation\/([^/]*)\/?(.*)$/.exec(request.url ?? "") ?? [];
      if (request.method === "GET" && id === "next") {
        this.#waiting = response;
        this.#serve();
        return;
      }
      const body = Buffer.concat(await request.toArray()).toString();
      this.answers.push({ kind: kind ?? "", body: JSON.parse(body) });
      response.writeHead(202).end();
    });
  }

  /** Starts to listen; returns `host:port`. */
  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Whether the runtime waits for an invocation. */
  get isIdle(): boolean {
    return this.#waiting !== undefined;
  }

  invoke(event: unknown): void {
    this.#events.push(event);
    this.#serve();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #serve(): void {
    if (!this.#waiting || this.#events.length === 0) return;
    this.#waiting.setHeader("lambda-runtime-aws-request-id", `request-${this.answers.length}`);
    this.#waiting.setHeader("lambda-runtime-deadline-ms", Date.now() + this.#timeoutMs);
    this.#waiting.setHeader("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:1:function:f");
    this.#waiting.end(JSON.stringify(this.#events.shift()));
    this.#waiting = undefined;
  }
}
