import {
  ChangeMessageVisibilityBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  type SQSClient,
} from "@aws-sdk/client-sqs";
import { awsFailure, REACH_AWS, wasAnswered } from "../../aws/failure.ts";
import { defineError } from "../../change/tributary-error.ts";

/** A dead-letter queue could not be read. What the state table holds is known all the same. */
export class DeadLetterQueueUnreadError extends defineError("DEAD_LETTER_QUEUE_UNREAD", "retry").from(
  (url: string, action: string, cause: unknown) => ({
    message: `the dead-letter queue ${nameOfQueue(url)} did not ${action}: SQS: ${awsFailure(cause)}`,
    remedy: wasAnswered(cause)
      ? "Permit sqs:GetQueueAttributes, ReceiveMessage, ChangeMessageVisibility and DeleteMessage on it, and kms:Decrypt with its key, in its account and region."
      : `Nothing was lost, and the command may be repeated: ${REACH_AWS}.`,
    cause,
  }),
) {}

/** A queue has a redrive policy of its own: to read its messages a few times would move them elsewhere. */
export class DeadLetterQueueMovesError extends defineError("DEAD_LETTER_QUEUE_MOVES", "stop").from(
  (url: string) => ({
    message: `the dead-letter queue ${nameOfQueue(url)} has a redrive policy: SQS moves its messages elsewhere when they are read too often, so it was not read`,
    remedy:
      "Remove the queue's own redrive policy (ours has none), or read it in the console. What is parked is listed all the same.",
  }),
) {}

/** One message of a dead-letter queue while it is read. */
export interface QueuedMessage {
  readonly id: string;
  readonly body: string;
  /** ISO 8601. */
  readonly sentAt: string;
}

/** Messages of one reading. */
export const READ_AT_MOST = 1_000;
/** Longest reading. */
const READ_MS = 20_000;
/** Seconds for which a message is hidden from others where this process dies: a reading, and what is decided from it. */
const HIDDEN_SECONDS = 60;
/** For what must be tried whatever has happened: to show the messages again. */
const RELEASE_MS = 5_000;
const BATCH = 10;

/**
 * One look into a dead-letter queue. SQS has no other way than to receive messages, which hides them from everybody else: so each is shown
 * again at the end, and deleted only where that is asked for, by its id. `close` must be called.
 *
 * @example
 * const reading = await QueueReading.open(sqs, url, signal);
 * try {
 *   for await (const { id, body } of reading.messages()) if (isMended(body)) await reading.remove(id);
 * } finally {
 *   await reading.close();
 * }
 */
export class QueueReading {
  /** Messages that somebody else had received when this reading began: they are not seen. */
  readonly inFlight: number;
  /** Messages that were seen. */
  count = 0;
  /** There are more than were seen. */
  more = false;
  readonly #sqs: SQSClient;
  readonly #url: string;
  readonly #signal: AbortSignal;
  readonly #limit: number;
  /** Receipt of each message that is hidden by this reading, by its id. */
  readonly #receipts = new Map<string, string>();

  private constructor(
    sqs: SQSClient,
    url: string,
    settings: { readonly signal: AbortSignal; readonly inFlight: number; readonly limit: number },
  ) {
    this.#sqs = sqs;
    this.#url = url;
    this.#signal = settings.signal;
    this.#limit = settings.limit;
    this.inFlight = settings.inFlight;
  }

  /** @throws DeadLetterQueueUnreadError, DeadLetterQueueMovesError */
  static async open(
    sqs: SQSClient,
    url: string,
    signal: AbortSignal,
    limit = READ_AT_MOST,
  ): Promise<QueueReading> {
    const { Attributes = {} } = await asked(url, "tell how much it holds", () =>
      sqs.send(
        new GetQueueAttributesCommand({
          QueueUrl: url,
          AttributeNames: ["ApproximateNumberOfMessagesNotVisible", "RedrivePolicy"],
        }),
        { abortSignal: signal },
      ),
    );
    if (Attributes.RedrivePolicy) throw new DeadLetterQueueMovesError(url);
    const inFlight = Number(Attributes.ApproximateNumberOfMessagesNotVisible ?? 0);
    return new QueueReading(sqs, url, { signal, inFlight, limit });
  }

  /** Yields the messages, each once, until there are no more, or as many as a reading may have. @throws DeadLetterQueueUnreadError */
  async *messages(): AsyncGenerator<QueuedMessage> {
    const until = performance.now() + READ_MS;
    for (;;) {
      if (this.count >= this.#limit || performance.now() >= until) {
        this.more = true;
        return;
      }
      const { Messages = [] } = await asked(this.#url, "give its messages", () =>
        this.#sqs.send(
          new ReceiveMessageCommand({
            QueueUrl: this.#url,
            MaxNumberOfMessages: Math.min(BATCH, this.#limit - this.count),
            VisibilityTimeout: HIDDEN_SECONDS,
            // Without a wait SQS asks some of its servers only, and may answer that there is nothing.
            WaitTimeSeconds: 1,
            MessageSystemAttributeNames: ["SentTimestamp"],
          }),
          { abortSignal: this.#signal },
        ),
      );
      if (Messages.length === 0) return;
      // All of them before the first is given: the caller may stop at it.
      const fresh = Messages.filter(({ MessageId = "" }) => !this.#receipts.has(MessageId));
      for (const { MessageId = "", ReceiptHandle = "" } of Messages)
        this.#receipts.set(MessageId, ReceiptHandle);
      this.count += fresh.length;
      for (const { MessageId: id = "", Body: body = "", Attributes } of fresh)
        yield { id, body, sentAt: new Date(Number(Attributes?.SentTimestamp ?? 0)).toISOString() };
    }
  }

  /** Deletes a message that this reading has seen. @throws DeadLetterQueueUnreadError */
  async remove(id: string): Promise<void> {
    const ReceiptHandle = this.#receipts.get(id);
    if (ReceiptHandle === undefined) return;
    await asked(this.#url, "delete a message", () =>
      this.#sqs.send(new DeleteMessageCommand({ QueueUrl: this.#url, ReceiptHandle }), {
        abortSignal: this.#signal,
      }),
    );
    this.#receipts.delete(id);
  }

  /** Shows everybody what was read and not removed. Never throws: what cannot be shown now shows by itself within a minute. */
  async close(): Promise<void> {
    const entries = [...this.#receipts].map(([, ReceiptHandle], i) => ({
      ...{ Id: String(i), ReceiptHandle, VisibilityTimeout: 0 },
    }));
    this.#receipts.clear();
    const abortSignal = AbortSignal.timeout(RELEASE_MS);
    for (let i = 0; i < entries.length; i += BATCH) {
      const command = new ChangeMessageVisibilityBatchCommand({
        QueueUrl: this.#url,
        Entries: entries.slice(i, i + BATCH),
      });
      await this.#sqs.send(command, { abortSignal }).catch(() => {});
    }
  }
}

async function asked<T>(url: string, action: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw new DeadLetterQueueUnreadError(url, action, error);
  }
}

function nameOfQueue(url: string): string {
  return url.split("/").at(-1) ?? url;
}
