import { isDeepStrictEqual } from "node:util";
import type { SourceMessage } from "../../../change/change-stream.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { type PositionText, parsePosition } from "../../../change/position.ts";
import type { HeldMessage } from "../hold/held-change.ts";
import { isOfIdentity } from "../identity/identity-errors.ts";
import { isOfOneChange, MessageOrderError, UnaskedMessageError } from "./decode-errors.ts";
import type { ChangeDecoderOptions } from "./decoder-options.ts";
import { EventBytes } from "./event-bytes.ts";
import { EventWriter } from "./event-writer.ts";
import { LogicalMessages } from "./logical-messages.ts";
import { OutboxEvents } from "./outbox-events.ts";
import { REFUSED_TYPES } from "./pgoutput/later-protocols.ts";
import {
  type Begin,
  decodeBegin,
  decodeCommit,
  decodeLogicalMessage,
  decodeOrigin,
  decodeRelation,
  decodeStreamAbort,
  decodeTruncate,
  decodeType,
  type Relation,
} from "./pgoutput/messages.ts";
import { MessageReader, showByte } from "./pgoutput/reader.ts";
import { type ChangeListener, lastPlan, planAt, type RelationPlan } from "./relation-plan.ts";
import { Relations } from "./relations.ts";
import { RowChanges } from "./row-changes.ts";
import { firstOf, openTransaction, type Transaction } from "./transaction.ts";
import { namedFailure, truncateOf, UndecodedChanges } from "./undecoded.ts";
import { nameForm, textForm } from "./values/text.ts";

/**
 * Turns pgoutput messages into routed change events: ordinals (rule 1), keys and partitions (rule 4), the
 * envelope's JSON text. An error leaves it in no defined state: begin anew with `reconnected`.
 */
export class ChangeDecoder {
  readonly #options: ChangeDecoderOptions;
  readonly #relations: Relations;
  readonly #reader: MessageReader;
  readonly #writer: EventWriter;
  readonly #rows: RowChanges;
  /** Holds the bytes that the changes of a transaction share. */
  readonly #shared = new EventBytes();
  readonly #messages: LogicalMessages;
  readonly #outbox: OutboxEvents;
  readonly #undecoded: UndecodedChanges;

  #transaction: Transaction | undefined;
  /** Commit LSN of the last BEGIN on this connection. */
  #lastBegin = -1n;
  #lastCommit = -1n;

  constructor(options: ChangeDecoderOptions) {
    this.#options = options;
    const { resumeAfter, now = Date.now } = options;
    const text = textForm(options.encoding);
    const names = nameForm(options.encoding);
    this.#reader = new MessageReader(names);
    this.#outbox = new OutboxEvents({ ...options, now });
    this.#writer = new EventWriter(now);
    this.#rows = new RowChanges({
      ...options,
      reader: this.#reader,
      writer: this.#writer,
      outbox: this.#outbox,
      nameForm: names,
    });
    this.#relations = new Relations({ ...options, text, outbox: this.#outbox });
    this.#undecoded = new UndecodedChanges(options, this.#relations);
    this.#messages = new LogicalMessages({
      ...options,
      now,
      // Messages have ordinals of their own: those of the same transaction may come twice, none is lost.
      resumeAfter: resumeAfter === undefined ? "" : firstOf(resumeAfter),
      outbox: this.#outbox,
      onMessage: options.onMessage,
    });
  }

  /** Plans these relations anew: what is known of their tables has changed. */
  replan(oids: readonly number[]): void {
    this.#relations.replan(oids);
  }

  /** Between BEGIN and COMMIT. */
  get inTransaction(): boolean {
    return this.#transaction !== undefined;
  }

  /** Position of the last logical message that came, given or not. */
  get lastMessage(): PositionText {
    return this.#messages.seen;
  }

  /** The plan that a Relation message of this content would make, for what is read beside the log. @throws CatalogLookupError */
  async plan(relation: Relation): Promise<RelationPlan> {
    const relations = new Relations({
      ...this.#options,
      text: textForm(this.#options.encoding),
      outbox: this.#outbox,
    });
    await relations.learn(relation);
    return lastPlan(relations.get(relation.oid) as RelationPlan);
  }

  /** Lets `listener` see the changes of a table, as `formatTable` writes it, from now on; undefined: nobody. */
  listen(table: string, listener: ChangeListener | undefined): void {
    this.#relations.listen(table, listener);
  }

  /** A new connection: relations come anew; changes at or before the last one given are not given again. */
  reconnected(): void {
    this.#relations.forget();
    this.#transaction = undefined;
    this.#lastBegin = -1n;
  }

  /**
   * Decodes one pgoutput message: the payload of an XLogData whose WAL start is `lsn`. Appends to `out` and
   * keeps nothing of `payload`. Gives a promise only when a relation needs the catalog: await it before the
   * next message.
   *
   * @throws MalformedMessageError, MessageOrderError, UnaskedMessageError, NameEncodingError, TextEncodingError, ValueFormatError, KeyValueMissingError,
   * KeyColumnError, KeyUnknownError, ChangeTooLargeError, and (as a rejection) CatalogLookupError.
   */
  decode(payload: Buffer, lsn: bigint, out: SourceMessage[]): Promise<void> | undefined {
    return this.decodeAt(payload, 0, payload.length, Number(lsn >> 32n), Number(lsn & 0xffffffffn), out);
  }

  /** The same for a payload in `buffer[start, end)`, and the upper and lower 32 bits of the LSN. */
  decodeAt(
    buffer: Buffer,
    start: number,
    end: number,
    lsnHigh: number,
    lsnLow: number,
    out: SourceMessage[],
  ): Promise<void> | undefined {
    this.#writer.lsnHigh = lsnHigh;
    this.#writer.lsnLow = lsnLow;
    const before = out.length;
    try {
      this.#reader.open(buffer, start, end);
      return this.#decode(out);
    } catch (error) {
      const failure = namedFailure(error, this.#writer.lsnText, end - start);
      const payload = buffer.subarray(start, end);
      const transaction = this.#transaction;
      const failed = { transaction, payload, lsn: this.#writer.lsn };
      if (!transaction || !this.#undecoded.takeFailed(failure, failed, out, before)) throw failure;
      this.#rows.gave(transaction, transaction.ordinal);
      return undefined;
    }
  }

  /** Decodes a change once more that was taken aside: by a decoder of its own. @throws why it still is no event. */
  async decodeHeld(held: HeldMessage, out: SourceMessage[]): Promise<void> {
    if (!isDeepStrictEqual(this.#relations.get(held.relation.oid)?.relation, held.relation))
      await this.#relations.learn(held.relation);
    const nothing = { commitLsn: -1n, ordinal: 0 };
    // Not this decoder's: the hold may be of an epoch before.
    const { epoch } = parsePosition(held.position);
    this.#transaction = openTransaction(held.begin, epoch, nothing, this.#shared);
    this.#transaction.ordinal = held.ordinal;
    try {
      await this.decode(held.payload, held.lsn, out);
    } finally {
      this.#transaction = undefined;
    }
  }

  #decode(out: SourceMessage[]): Promise<void> | undefined {
    const reader = this.#reader;
    const type = reader.uint8("type of message");
    switch (type) {
      case 0x49:
        reader.named("Insert");
        this.#rows.insert(this.#open("Insert"), this.#relation("Insert"), out);
        return undefined;
      case 0x55:
        reader.named("Update");
        this.#rows.update(this.#open("Update"), this.#relation("Update"), out);
        return undefined;
      case 0x44:
        reader.named("Delete");
        this.#rows.delete(this.#open("Delete"), this.#relation("Delete"), out);
        return undefined;
      case 0x42:
        reader.named("Begin");
        return this.#begin(decodeBegin(reader));
      case 0x43:
        reader.named("Commit");
        return this.#commit(out);
      case 0x52:
        reader.named("Relation");
        return this.#relations.learn(decodeRelation(reader, this.#writer.lsnText));
      case 0x54:
        reader.named("Truncate");
        return this.#truncate(out);
      case 0x4d:
        reader.named("Message");
        return this.#message(out);
      case 0x59:
        // A type's name; what its text looks like is the catalog's to say.
        reader.named("Type");
        decodeType(reader);
        return undefined;
      case 0x4f:
        reader.named("Origin");
        decodeOrigin(reader);
        return undefined;
      case 0x41:
        reader.named("StreamAbort");
        return this.#streamAbort();
      default: {
        const refused = REFUSED_TYPES.get(type);
        if (refused) throw new UnaskedMessageError({ ...refused, lsn: this.#writer.lsnText });
        throw reader.malformed("a type of protocol 1: one of B C O R Y I U D T M", showByte(type), 1);
      }
    }
  }

  /** Nothing of a rolled-back transaction was sent, so there is nothing to take back: no ordinal, no message downstream. */
  #streamAbort(): undefined {
    const { xid, subXid } = decodeStreamAbort(this.#reader);
    // Transactions travel whole at their commit: inside one, an abort would mean that rows already given did not happen.
    if (this.#transaction)
      throw this.#outOfOrder("StreamAbort", "it outside a transaction", `${xid}/${subXid} inside one`);
  }

  #begin(begin: Begin): undefined {
    if (this.#transaction)
      throw this.#outOfOrder("Begin", "the commit of the open transaction", "another one");
    if (begin.commitLsn <= this.#lastBegin) {
      throw this.#outOfOrder(
        "Begin",
        `a commit after ${formatLsn(this.#lastBegin)}`,
        `commit ${formatLsn(begin.commitLsn)}`,
      );
    }
    this.#options.onBegin?.(begin);
    this.#lastBegin = begin.commitLsn;
    this.#transaction = openTransaction(begin, this.#options.epoch, this.#rows.given, this.#shared);
    this.#transaction.aside = this.#options.putAside?.(begin.commitLsn);
  }

  #commit(out: SourceMessage[]): undefined {
    const commit = decodeCommit(this.#reader);
    const { begin, timeMs } = this.#open("Commit");
    if (commit.commitLsn !== begin.commitLsn) {
      throw this.#outOfOrder("Commit", `commit ${formatLsn(begin.commitLsn)}`, formatLsn(commit.commitLsn));
    }
    this.#transaction = undefined;
    if (commit.commitLsn <= this.#lastCommit) return;
    this.#lastCommit = commit.commitLsn;
    out.push({ kind: "commit", endPlace: commit.endLsn, commitTimeMs: timeMs });
  }

  #truncate(out: SourceMessage[]): undefined {
    const { relations } = decodeTruncate(this.#reader);
    const transaction = this.#open("Truncate");
    for (const oid of relations) {
      const plan = this.#planOf("Truncate", oid);
      this.#options.onTruncate?.(oid);
      const ordinal = ++transaction.ordinal;
      if (!plan.captured || ordinal <= transaction.given) continue;
      const { problem } = plan;
      if (problem && isOfIdentity(problem.code)) {
        const truncate = { plan, transaction, ordinals: 1, payload: truncateOf(oid), lsn: this.#writer.lsn };
        if (!this.#undecoded.take(truncate, problem, out)) throw problem;
        this.#rows.gave(transaction, ordinal);
        continue;
      }
      // It goes to every partition: a key that is not known is no problem of its.
      if (problem && !isOfOneChange(problem)) throw problem;
      this.#rows.truncate(transaction, plan, ordinal, out);
    }
  }

  #message(out: SourceMessage[]): undefined {
    const message = decodeLogicalMessage(this.#reader);
    const transaction = message.transactional ? this.#open("Message") : undefined;
    const held = this.#messages.take(message, transaction, transaction ? ++transaction.messages : 1, out);
    // All commits before a message outside transactions have been given: its place may be acknowledged.
    if (!this.inTransaction && !held) out.push({ kind: "idle", place: message.lsn });
  }

  #open(type: string): Transaction {
    if (this.#transaction) return this.#transaction;
    throw this.#outOfOrder(type, "it inside a transaction", "it outside");
  }

  #relation(type: string): RelationPlan {
    return this.#planOf(type, this.#reader.uint32("relation OID"));
  }

  #planOf(type: string, oid: number): RelationPlan {
    const plan = this.#relations.get(oid);
    if (plan) return plan.later === undefined ? plan : this.#planHere(plan);
    throw this.#outOfOrder(type, "a relation told before", `relation ${oid}`);
  }

  /** The plan of the change that comes next. */
  #planHere(plan: RelationPlan): RelationPlan {
    const { begin, ordinal, epoch } = this.#transaction as Transaction;
    return planAt(plan, epoch, begin.commitLsn, ordinal + 1);
  }

  #outOfOrder(type: string, expected: string, got: string): MessageOrderError {
    return new MessageOrderError({ type, lsn: this.#writer.lsnText, expected, got });
  }
}
