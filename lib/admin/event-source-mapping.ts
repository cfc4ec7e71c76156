import { setTimeout as sleep } from "node:timers/promises";
import type { LambdaClient } from "@aws-sdk/client-lambda";
import { backoffMs } from "../backoff.ts";

/** The event source mapping of a consumer, on AWS. */
export interface ConsumerMapping {
  readonly lambda: LambdaClient;
  readonly uuid: string;
}

/** What became of a mapping: its state as Lambda tells it, or why it could not be switched. */
export type MappingOutcome = { readonly state: string } | { readonly error: unknown };

/** Milliseconds for which a mapping that is being changed is waited for, and between tries. */
const DEADLINE_MS = 60_000;
const RETRY = { baseMs: 500, capMs: 5_000 };
/** Another change of the mapping is under way, or Lambda is busy. https://docs.aws.amazon.com/lambda/latest/api/API_UpdateEventSourceMapping.html */
const PASSING = ["ResourceConflictException", "ResourceInUseException", "TooManyRequestsException"];

/** Switches a mapping on or off: nothing is invoked in vain. Needs lambda:UpdateEventSourceMapping. Never throws but the signal's reason. */
export async function switchMapping(
  { lambda, uuid }: ConsumerMapping,
  enabled: boolean,
  signal: AbortSignal,
): Promise<MappingOutcome> {
  const { UpdateEventSourceMappingCommand } = await import("@aws-sdk/client-lambda");
  const until = performance.now() + DEADLINE_MS;
  for (let tries = 1; ; tries++) {
    try {
      const command = new UpdateEventSourceMappingCommand({ UUID: uuid, Enabled: enabled });
      const { State = "unknown" } = await lambda.send(command, { abortSignal: signal });
      return { state: State };
    } catch (error) {
      signal.throwIfAborted();
      const { name, $metadata } = error as { name?: string; $metadata?: { httpStatusCode?: number } };
      const passes = PASSING.includes(name ?? "") || ($metadata?.httpStatusCode ?? 500) >= 500;
      if (!passes || performance.now() > until) return { error };
    }
    await sleep(backoffMs(tries, RETRY), undefined, { signal });
  }
}
