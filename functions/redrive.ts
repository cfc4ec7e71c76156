import type { SQSBatchResponse, SQSEvent } from "aws-lambda";
import { lambdaClient } from "../lib/aws/clients.ts";
import { TributaryError } from "../lib/change/tributary-error.ts";
import { errorFacts } from "../lib/consume/api/context.ts";
import { ConsumerPausedError } from "../lib/consume/consume-errors.ts";
import { deadLetterRequest } from "../lib/consume/dead-letter/dead-letter-request.ts";
import { invokeRedrive } from "../lib/consume/dead-letter/redrive-function.ts";

/*
 * Redrives without a person: by messages moved from a consumer's dead-letter queue into one of this function's own, each
 * for its key, or on a schedule, for all keys. TRIBUTARY_REDRIVE_FUNCTION names the consumer's redrive function.
 */

const FUNCTION = "TRIBUTARY_REDRIVE_FUNCTION";

let lambda: ReturnType<typeof lambdaClient> | undefined;

export async function handler(event: SQSEvent | { readonly Records?: undefined }): Promise<SQSBatchResponse> {
  const name = process.env[FUNCTION];
  if (!name) throw new Error(`${FUNCTION} must name the consumer's redrive function`);
  lambda ??= lambdaClient();
  const client = await lambda;
  if (!event.Records) {
    try {
      await invokeRedrive(client, name, { tributary: "redrive" });
    } catch (error) {
      if (!(error instanceof ConsumerPausedError)) throw error;
      // Somebody wants it so: no alarm, and the next one comes by the clock.
      console.warn(JSON.stringify({ level: "warn", message: error.message, remedy: error.remedy }));
    }
    return { batchItemFailures: [] };
  }
  const batchItemFailures: SQSBatchResponse["batchItemFailures"] = [];
  for (const { body, messageId } of event.Records) {
    try {
      const {
        failed,
        open,
        busy,
        unhandled = 0,
        superseded,
      } = await invokeRedrive(client, name, deadLetterRequest(messageId, body));
      // Of one that is superseded only the message has the change still: it goes back, for a person to see (`tributary dlq discard`).
      if (failed + open + busy + unhandled + superseded === 0) continue;
    } catch (error) {
      // Our own errors hold no row values; of others the class has to do.
      const reason = error instanceof TributaryError ? error.message : undefined;
      const facts = { messageId, ...errorFacts(error), reason };
      console.warn(JSON.stringify({ level: "warn", message: "a letter was not redriven", ...facts }));
    }
    batchItemFailures.push({ itemIdentifier: messageId });
  }
  return { batchItemFailures };
}
