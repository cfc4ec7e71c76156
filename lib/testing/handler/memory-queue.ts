import type { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { sqsRefusal } from "../../local/aws-limits/sqs.ts";
import { type OnRefusal, refusalError } from "./memory-table.ts";

/**
 * Returns a client of a queue in memory: `onMessage` gets the body of each message that SQS takes, and may throw what becomes of the
 * call. A message that SQS refuses fails as there.
 */
export function memoryQueue(
  onMessage: (body: string) => unknown,
  onRefusal: OnRefusal = refusalError,
): SQSClient {
  const send = async ({ input }: SendMessageCommand) => {
    const refusal = sqsRefusal("SendMessage", input);
    if (refusal) throw onRefusal(refusal);
    await onMessage(input.MessageBody ?? "");
    return {};
  };
  return { send } as unknown as SQSClient;
}
