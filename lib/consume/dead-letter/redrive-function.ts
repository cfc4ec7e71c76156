import { InvokeCommand, type LambdaClient } from "@aws-sdk/client-lambda";
import * as z from "zod/mini";
import { awsFailure, REACH_AWS, wasAnswered } from "../../aws/failure.ts";
import { ConsumerPausedError } from "../consume-errors.ts";
import { RedriveFailedError } from "./redrive-errors.ts";
import type { RedriveReport, RedriveRequest } from "./redrive-request.ts";

const report = z.looseObject({ tributary: z.literal("redrive"), consumer: z.string(), redriven: z.number() });
const failure = z.looseObject({ errorType: z.optional(z.string()), errorMessage: z.optional(z.string()) });

/**
 * Has a consumer's function redrive, and waits for what it did. The client must not repeat a call, and must wait as
 * long as a function may run.
 * @throws RedriveFailedError; ConsumerPausedError, as the function throws it
 */
export async function invokeRedrive(
  lambda: LambdaClient,
  functionName: string,
  request: RedriveRequest,
  signal?: AbortSignal,
): Promise<RedriveReport> {
  let answer: { FunctionError?: string; Payload?: Uint8Array };
  try {
    answer = await lambda.send(
      new InvokeCommand({ FunctionName: functionName, Payload: JSON.stringify(request) }),
      signal ? { abortSignal: signal } : {},
    );
  } catch (error) {
    throw new RedriveFailedError(functionName, `Lambda's Invoke: ${awsFailure(error)}`, {
      remedy: wasAnswered(error)
        ? "Name a function of this account and region (--stack finds it), and permit lambda:InvokeFunction on it."
        : `Nothing is lost, and a redrive may be repeated: ${REACH_AWS} (for Lambda alone: AWS_ENDPOINT_URL_LAMBDA).`,
      cause: error,
    });
  }
  const payload = readJson(answer.Payload);
  if (answer.FunctionError !== undefined) {
    const { errorType, errorMessage } = failure.safeParse(payload).data ?? {};
    const paused = pausedError(errorType, errorMessage);
    if (paused) throw paused;
    // Its message may quote row values.
    throw new RedriveFailedError(functionName, errorType ?? answer.FunctionError);
  }
  if (!report.safeParse(payload).success) {
    throw new RedriveFailedError(functionName, "its answer is no redrive's: is it a consumer of Tributary?");
  }
  return payload as RedriveReport;
}

/** Returns the error of a paused consumer, of its class and message as another process gave them; undefined: it is another error. */
export function pausedError(type: string | undefined, message = ""): ConsumerPausedError | undefined {
  const [, consumer, told] = /^consumer "([a-z][a-z0-9-]*)" is paused (.*)$/s.exec(message) ?? [];
  if (type !== "ConsumerPausedError" || consumer === undefined) return undefined;
  return new ConsumerPausedError(consumer, told as string);
}

function readJson(bytes: Uint8Array | undefined): unknown {
  try {
    return JSON.parse(Buffer.from(bytes ?? []).toString());
  } catch {
    return undefined;
  }
}
