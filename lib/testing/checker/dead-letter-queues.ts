import { DeleteMessageCommand, ReceiveMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";

/** Takes dead letters out of queues as they come, and keeps what they are about. */
export class DeadLetterQueues {
  readonly #sqs: SQSClient;
  readonly #found = new Map<string, Set<string>>();

  constructor(sqs: SQSClient) {
    this.#sqs = sqs;
  }

  /** Returns everything that a queue has held so far: `topic/position`, and `topic/partition/position`. */
  async read(QueueUrl: string): Promise<ReadonlySet<string>> {
    const found = this.#found.get(QueueUrl) ?? new Set();
    this.#found.set(QueueUrl, found);
    for (;;) {
      const receive = new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 });
      const { Messages = [] } = await this.#sqs.send(receive);
      if (Messages.length === 0) return found;
      for (const { Body = "", ReceiptHandle } of Messages) {
        const { topic, partition, position } = JSON.parse(Body) as Record<string, string | number>;
        found.add(`${topic}/${position}`);
        found.add(`${topic}/${partition}/${position}`);
        await this.#sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
    }
  }
}
