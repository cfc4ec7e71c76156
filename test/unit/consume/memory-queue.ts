import type { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { sqsRefusal } from "../../../lib/local/aws-limits/sqs.ts";
import { collectRefusals } from "../../refusals.ts";

/** What SQS would have refused of all queues of a test file. */
const refusals = collectRefusals();

/**
 * A client of a queue in memory: `onMessage` gets the body of each message that SQS takes, and may throw what becomes of the
 * call. A message that SQS refuses fails as there, and fails the test.
 */
export function memoryQueue(onMessage: (body: string) => unknown): SQSClient {
  const send = async ({ input }: SendMessageCommand) => {
    const refusal = sqsRefusal("SendMessage", input);
    if (refusal) throw refusals.note(refusal);
    await onMessage(input.MessageBody ?? "");
    return {};
  };
  return { send } as unknown as SQSClient;
}
