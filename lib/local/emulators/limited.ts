import type { Server, ServerResponse } from "node:http";
import type { AwsRefusal } from "../../aws/refusal.ts";
import { reportToParent } from "../child.ts";
import { interceptCalls } from "./json-calls.ts";

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
  interceptCalls(server, ({ operation, body, response, pass }) => {
    const refusal = limits.refusalOf(operation, jsonOf(body));
    if (refusal) {
      report({ service: limits.service, operation, ...refusal });
      refuse(response, refusal);
      return;
    }
    watchAnswer(response, (code, message) => {
      if (limits.ownRefusals.includes(code)) report({ service: limits.service, operation, code, message });
    });
    pass();
  });
  return server;
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
