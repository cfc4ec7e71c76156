import type { SQSClient } from "@aws-sdk/client-sqs";
import { type ClaimStore, claimOf, pathSegment } from "../change/claim-store.ts";
import { DeadLetterQueue, MAX_LETTER_BYTES } from "../consume/dead-letter/dead-letter.ts";
import { DeadLetterTooLargeError } from "../consume/dead-letter/dead-letter-errors.ts";
import type { AsideLetter, AsideQueue } from "../source/postgres/aside/aside-record.ts";

/** Names the queue that changes go to which capture puts aside. */
export const CAPTURE_DEAD_LETTER_VARIABLE = "TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL";

/** The dead-letter queue of capture: the letter holds the server's message, or says where in the claim store it stands. */
export class CaptureDeadLetterQueue implements AsideQueue {
  readonly #queue: DeadLetterQueue;
  readonly #claims: ClaimStore | undefined;

  constructor(sqs: SQSClient, url: string, claims: ClaimStore | undefined) {
    this.#queue = new DeadLetterQueue(sqs, url);
    this.#claims = claims;
  }

  /** @throws DeadLetterRefusedError; DeadLetterTooLargeError where there is no claim store; ClaimStoreUnavailableError, ClaimStoreRefusedError */
  async send(letter: AsideLetter, message: Buffer, signal: AbortSignal): Promise<void> {
    try {
      // Longer ones may not even be a string.
      if (message.length > MAX_LETTER_BYTES) throw new DeadLetterTooLargeError(message.length);
      await this.#queue.send({ ...letter, message: message.toString("base64") }, signal);
    } catch (error) {
      if (!(error instanceof DeadLetterTooLargeError) || !this.#claims) throw error;
      const { pipeline, topic, position } = letter;
      const path = [pipeline, "put-aside", topic, position].map(pathSegment).join("/");
      const messageClaim = claimOf(this.#claims, path, message);
      await this.#claims.put(messageClaim, message, signal);
      await this.#queue.send({ ...letter, messageClaim }, signal);
    }
  }
}
