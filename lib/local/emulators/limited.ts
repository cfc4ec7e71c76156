import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import type { AwsRefusal } from "../../aws/refusal.ts";
import { reportToParent } from "../child.ts";

/** A call that was refused. */
export interface RefusedCall extends AwsRefusal {
  /** `dynamodb`, `kinesis`, `sqs`, `s3`. */
  readonly service: string;
  readonly operation: string;
}

/** Limits of AWS that are enforced in front of an emulator. */
export interface Limits {
  readonly service: string;
  /** Returns why AWS refuses the call, or undefined. */
  readonly refusalOf: (operation: string, input: unknown) => AwsRefusal | undefined;
  /** Codes of the emulator's own answers that say the same: the call can never succeed on AWS. */
  readonly ownRefusals: readonly string[];
  readonly onRefused?: (call: RefusedCall) => void;
}

/**
 * Puts AWS's limits before an emulator that speaks JSON: a call that AWS refuses is answered with AWS's error, does not reach the
 * emulator, and is reported. The emulator's own refusals are reported too.
 */
export function limited<S extends Server>(server: S, limits: Limits): S {
  const report = limits.onRefused ?? reportToParent;
  const listeners = server.listeners("request") as ((request: unknown, response: unknown) => void)[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      const operation = String(request.headers["x-amz-target"] ?? "").split(".")[1] ?? "";
      const refusal = limits.refusalOf(operation, jsonOf(body));
      if (refusal) {
        report({ service: limits.service, operation, ...refusal });
        refuse(response, refusal);
        return;
      }
      watchAnswer(response, (code, message) => {
        if (limits.ownRefusals.includes(code)) report({ service: limits.service, operation, code, message });
      });
      const again = replayed(request, body);
      for (const listener of listeners) listener.call(server, again, response);
    });
  });
  return server;
}

/** The request once more, with its body to be read. */
function replayed(request: IncomingMessage, body: Buffer): Readable {
  const { method, url, headers, rawHeaders, httpVersion, socket } = request;
  return Object.assign(Readable.from([body], { objectMode: false }), {
    ...{ method, url, headers, rawHeaders, httpVersion, socket },
  });
}

function refuse(response: ServerResponse, { code, message }: AwsRefusal): void {
  response
    .writeHead(400, {
      "content-type": "application/x-amz-json-1.0",
      // SQS's clients read the code of the older protocol, where it is given.
      "x-amzn-query-error": `${code};Sender`,
    })
    .end(JSON.stringify({ __type: code, message }));
}

/** Calls back with the code of an answer that is an error of the caller's. */
function watchAnswer(response: ServerResponse, onError: (code: string, message: string) => void): void {
  const end = response.end.bind(response) as (...given: unknown[]) => ServerResponse;
  response.end = (...given: unknown[]) => {
    if (response.statusCode === 400) {
      const answer = jsonOf(given[0]) as Record<string, unknown> | undefined;
      const code = String(answer?.__type ?? "").replace(/^.*#/, "");
      onError(code, String(answer?.message ?? answer?.Message ?? ""));
    }
    return end(...given);
  };
}

function jsonOf(bytes: unknown): unknown {
  try {
    return JSON.parse(String(bytes));
  } catch {
    return undefined;
  }
}
