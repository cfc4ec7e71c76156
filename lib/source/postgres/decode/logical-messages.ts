import { isAscii } from "node:buffer";
import type { SourceMessage } from "../../../change/change-stream.ts";
import { OWN_PREFIX } from "../../../change/control-event.ts";
import { messageEvent } from "../../../change/event-envelope.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { commitPrefix, formatOrdinal, type PositionText } from "../../../change/position.ts";
import type { Topic } from "../../../change/topic.ts";
import { messageTopic } from "../../../definition/route.ts";
import { HEARTBEAT } from "../slot/heartbeat.ts";
import type { DecodedPipeline } from "./decoded-pipeline.ts";
import type { OutboxEvents } from "./outbox-events.ts";
import { type EmittedMessage, placeOfMessage } from "./pgoutput/messages.ts";
import type { Transaction } from "./transaction.ts";
import type { TextDecode } from "./values/charset.ts";
import { NotText } from "./values/encoder.ts";
import { type TextEncoding, textForm } from "./values/text.ts";

/** A logical message of our own. Never delivered as an event. */
export interface OwnMessage {
  readonly prefix: string;
  /** A view on the read buffer: valid during the call only. */
  readonly content: Buffer;
  readonly lsn: bigint;
  readonly transactional: boolean;
}

/** Dependencies of `LogicalMessages`. */
export interface LogicalMessagesOptions {
  readonly pipeline: DecodedPipeline;
  readonly database: string;
  readonly epoch: number;
  readonly now: () => number;
  /** Messages at or before this position are not given. */
  readonly resumeAfter: PositionText;
  readonly outbox: OutboxEvents;
  readonly encoding: TextEncoding;
  readonly onMessage: ((message: OwnMessage) => boolean) | undefined;
}

/**
 * Logical messages (`pg_logical_emit_message`) as events on a topic of their own, so that their positions do not
 * mix with those of rows: (epoch, commit LSN or, outside transactions, the message's own place, count inside the
 * transaction). https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
export class LogicalMessages {
  readonly #options: LogicalMessagesOptions;
  readonly #topic: Topic;
  /** Undefined where content is not of an encoding that we read ourselves. */
  readonly #decode: TextDecode | undefined;
  /** Position of the last one seen, given or not. */
  #seen: PositionText;

  constructor(options: LogicalMessagesOptions) {
    this.#options = options;
    this.#topic = messageTopic(options.pipeline);
    const { encoding } = options;
    this.#decode = encoding === "utf-8" || encoding === "latin1" ? undefined : textForm(encoding).decode;
    this.#seen = options.resumeAfter;
  }

  /** Position of the last one that came, given or not; empty before the first. */
  get seen(): PositionText {
    return this.#seen;
  }

  /** Takes in one message; `ordinal` counts the messages of its transaction. Gives what `onMessage` gave. */
  take(
    message: EmittedMessage,
    transaction: Transaction | undefined,
    ordinal: number,
    out: SourceMessage[],
  ): boolean {
    const { epoch, onMessage, outbox } = this.#options;
    // Nothing stands at a heartbeat: a server that has lost it has lost nothing.
    if (message.prefix === HEARTBEAT) return onMessage?.(message) ?? false;
    const commitLsn = transaction?.begin.commitLsn ?? placeOfMessage(message.lsn);
    const position = commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal);
    if (position <= this.#seen) return false;
    this.#seen = position;
    if (message.prefix.startsWith(OWN_PREFIX)) return onMessage?.(this.#inUtf8(message)) ?? false;
    if (outbox.takes(message.prefix)) {
      out.push(outbox.message(this.#inUtf8(message), transaction, ordinal, formatLsn(message.lsn)));
    } else if (this.#delivers(message.prefix)) {
      const json = this.#json(message, transaction, commitLsn, ordinal);
      out.push({ kind: "change", topic: this.#topic, partition: 0, position, json, table: "$messages" });
    }
    return false;
  }

  /** The server gives the content as it stands in the log: a text that was written is in the database's encoding. */
  #inUtf8(message: EmittedMessage): EmittedMessage {
    const decode = this.#decode;
    const { content } = message;
    if (decode === undefined || isAscii(content)) return message;
    try {
      return { ...message, content: Buffer.from(decode(content, 0, content.length)) };
    } catch (error) {
      // No text: for its reader to refuse.
      if (error instanceof NotText) return message;
      throw error;
    }
  }

  #delivers(prefix: string): boolean {
    return this.#options.pipeline.source.messages.some((pattern) =>
      pattern.endsWith("*") ? prefix.startsWith(pattern.slice(0, -1)) : prefix === pattern,
    );
  }

  /** A message outside transactions has no transaction id and no commit time. */
  #json(
    { prefix, content, transactional, lsn }: EmittedMessage,
    transaction: Transaction | undefined,
    commitLsn: bigint,
    ordinal: number,
  ): string {
    const { pipeline, database, epoch, now } = this.#options;
    const nowMs = now();
    const facts = { pipeline: pipeline.name, database, prefix, content, transactional, nowMs };
    const txId = transaction ? String(transaction.begin.xid) : "";
    const timeMs = transaction?.timeMs ?? nowMs;
    return messageEvent(facts, { epoch, commitLsn, ordinal, lsn: formatLsn(lsn), txId, timeMs }).json;
  }
}
