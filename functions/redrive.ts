import type { SQSBatchResponse, SQSEvent } from "aws-lambda";
import { lambdaClient } from "../lib/aws.ts";
import { invokeRedrive } from "../lib/consume/redrive-function.ts";
import type { RedriveRequest } from "../lib/consume/redrive-request.ts";

/*
 * Redrives without a person: by messages moved from a consumer's dead-letter queue into one of this function's own, each
 * for its key, or on a schedule, for all keys. TRIBUTARY_REDRIVE_FUNCTION names the consumer's redrive function.
 */

const FUNCTION = "TRIBUTARY_REDRIVE_FUNCTION";

/** What of a dead letter says which one it is. */
type Letter = Pick<RedriveRequest, "consumer" | "topic" | "partition" | "position">;

let lambda: ReturnType<typeof lambdaClient> | undefined;

export async function handler(event: SQSEvent | { readonly Records?: undefined }): Promise<SQSBatchResponse> {
  const name = process.env[FUNCTION];
  if (!name) throw new Error(`${FUNCTION} must name the consumer's redrive function`);
  lambda ??= lambdaClient();
  const client = await lambda;
  if (!event.Records) {
    await invokeRedrive(client, name, { tributary: "redrive" });
    return { batchItemFailures: [] };
  }
  const batchItemFailures: SQSBatchResponse["batchItemFailures"] = [];
  for (const { body, messageId } of event.Records) {
    const { consumer, topic, partition, position } = JSON.parse(body) as Letter;
    const request = { tributary: "redrive", consumer, topic, partition, position } as const;
    const { failed, open, busy } = await invokeRedrive(client, name, request);
    // A letter that is done, or superseded, needs nobody any more.
    if (failed + open + busy > 0) batchItemFailures.push({ itemIdentifier: messageId });
  }
  return { batchItemFailures };
}
