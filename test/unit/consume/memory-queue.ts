import type { SQSClient } from "@aws-sdk/client-sqs";
import { memoryQueue as plainQueue } from "../../../lib/testing/handler/memory-queue.ts";
import { collectRefusals } from "../../refusals.ts";

/** What SQS would have refused of all queues of a test file. */
const refusals = collectRefusals();

/** The testing kit's queue. A message that SQS refuses fails the test. */
export function memoryQueue(onMessage: (body: string) => unknown): SQSClient {
  return plainQueue(onMessage, (refusal) => refusals.note(refusal));
}
