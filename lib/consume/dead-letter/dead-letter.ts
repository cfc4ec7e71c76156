import { SendMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";
import type { ClaimCheck } from "../../change/claim-check.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import { factsOf } from "../run/thrown.ts";
import { DeadLetterRefusedError, DeadLetterTooLargeError } from "./dead-letter-errors.ts";

/** A change that failed for good: docs, "Formats on the wire". Redrive needs nothing else. */
export interface DeadLetter {
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
  readonly position: PositionText;
  readonly shardId: string;
  readonly sequenceNumber: string;
  readonly attempts: number;
  /** ISO 8601. */
  readonly firstFailedAt: string;
  readonly lastFailedAt: string;
  readonly error: DeadLetterError;
  /** The change, or where it stands: in the claim store, or in the state table under this key. */
  readonly payload?: ChangeEventJson;
  readonly payloadClaim?: ClaimCheck;
  readonly payloadItem?: { readonly table: string; readonly pk: string; readonly sk: string };
}

/**
 * A record that cannot be read, whole: there is no change to name. Where its header can be read, it says of which topic
 * partition it is, and which changes it held: they are healed by a swept backfill, never by redrive.
 */
export interface DeadRecordLetter {
  readonly consumer: string;
  readonly topic?: string;
  readonly partition?: number;
  readonly first?: PositionText;
  readonly last?: PositionText;
  readonly after?: PositionText | null;
  readonly partitionKey: string;
  readonly shardId: string;
  readonly sequenceNumber: string;
  readonly attempts: 1;
  readonly firstFailedAt: string;
  readonly lastFailedAt: string;
  readonly error: DeadLetterError;
  /** The record's data, base64; or where it stands, where the queue does not take it. */
  readonly record?: string;
  readonly recordItems?: StoredRecord;
}

/** Items of the state table whose `data` make a record together: `<sk>1` to `<sk><pieces>`. */
export interface StoredRecord {
  readonly table: string;
  readonly pk: string;
  readonly sk: string;
  readonly pieces: number;
}

/** The one place where a handler's error message may stand: it can hold row values. */
export interface DeadLetterError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

/** SQS takes 1 MiB at most; a queue may be set to less. */
export const MAX_LETTER_BYTES = 1024 * 1024;

/** Sends dead letters to one queue. */
export class DeadLetterQueue {
  readonly #sqs: SQSClient;
  readonly #url: string;

  constructor(sqs: SQSClient, url: string) {
    this.#sqs = sqs;
    this.#url = url;
  }

  /**
   * `deadLetter` is a `DeadLetter`, a `DeadRecordLetter` or one of capture's; `payload` the text of its change, which goes in as it is.
   * @throws DeadLetterTooLargeError when no SQS queue, or not this one, takes a message of this size;
   *   DeadLetterRefusedError for all else. Either way the change is not done.
   */
  async send(deadLetter: object, signal: AbortSignal, payload?: string): Promise<void> {
    const facts = JSON.stringify(deadLetter);
    const body = acceptable(payload === undefined ? facts : `${facts.slice(0, -1)},"payload":${payload}}`);
    const bytes = Buffer.byteLength(body);
    if (bytes > MAX_LETTER_BYTES) throw new DeadLetterTooLargeError(bytes);
    try {
      await this.#sqs.send(new SendMessageCommand({ QueueUrl: this.#url, MessageBody: body }), {
        abortSignal: signal,
      });
    } catch (error) {
      if (error instanceof Error && isTooLong(error)) throw new DeadLetterTooLargeError(bytes);
      throw new DeadLetterRefusedError(error);
    }
  }
}

/**
 * Characters that SQS refuses stand inside of strings only, where an escape means the same.
 * "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF":
 * https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
 */
const REFUSED = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu;

/** The same JSON, of characters that SQS takes. */
function acceptable(json: string): string {
  return json.replace(REFUSED, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes." */
function isTooLong(error: Error): boolean {
  return error.name.startsWith("InvalidParameterValue") && /must be shorter/.test(error.message);
}

/** Returns an error as a dead letter tells it, its causes behind the stack. */
export function deadLetterError(error: unknown): DeadLetterError {
  return factsOf(error);
}
