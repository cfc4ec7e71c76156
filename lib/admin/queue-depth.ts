import { GetQueueAttributesCommand, type SQSClient } from "@aws-sdk/client-sqs";

/** Names by which SQS answers that there is no such queue. */
export const MISSING_QUEUE: readonly string[] = [
  "QueueDoesNotExist",
  "AWS.SimpleQueueService.NonExistentQueue",
  "NonExistentQueue",
];

/** Returns whether SQS answered that there is no such queue. */
export function isMissingQueue(error: unknown): boolean {
  return error instanceof Error && MISSING_QUEUE.includes(error.name);
}

/**
 * Returns the number of messages of a queue, as SQS estimates it: those that wait, and those that somebody has taken and not deleted.
 * @throws the SDK's error
 */
export async function queueDepth(sqs: SQSClient, queueUrl: string, signal: AbortSignal): Promise<number> {
  const command = new GetQueueAttributesCommand({
    QueueUrl: queueUrl,
    AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
  });
  const { Attributes } = await sqs.send(command, { abortSignal: signal });
  const { ApproximateNumberOfMessages: waiting, ApproximateNumberOfMessagesNotVisible: taken } =
    Attributes ?? {};
  return Number(waiting ?? "0") + Number(taken ?? "0");
}
