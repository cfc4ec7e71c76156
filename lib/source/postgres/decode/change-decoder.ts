import { isDeepStrictEqual } from "node:util";
import type { SourceMessage } from "../../../change/change-stream.ts";
import { EncodedChange, POSITION_BYTES } from "../../../change/encoded-change.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { commitPrefix, formatOrdinal, type PositionText, parsePosition } from "../../../change/position.ts";
import { EVERY_PARTITION, partitionOf } from "../../../change/topic.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import type { LogPipeline } from "../../../definition/pipeline.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { asidePlace } from "../aside/aside-record.ts";
import { PutAsideBefore } from "../aside/put-aside-before.ts";
import type { TypeCatalog } from "../catalog/type-catalog.ts";
import type { HeldMessage } from "../hold/held-change.ts";
import { isOfIdentity, KeyChangedError } from "../identity/identity-errors.ts";
import type { TableIdentities } from "../identity/table-identities.ts";
import type { IncompleteCreate } from "../reread/incomplete-create.ts";
import type { CommitFingerprint } from "../slot/slot-record.ts";
import {
  ChangeTooLargeError,
  isOfOneChange,
  KeyValueMissingError,
  MessageOrderError,
  NameEncodingError,
  UnaskedMessageError,
} from "./decode-errors.ts";
import { EventBytes, EventTooLong } from "./event-bytes.ts";
import { LogicalMessages, type OwnMessage } from "./logical-messages.ts";
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
import { MessageReader, NotName, showByte } from "./pgoutput/reader.ts";
import { decodeDelete, decodeInsert, decodeUpdate } from "./pgoutput/row-change.ts";
import { Tuple, UNCHANGED } from "./pgoutput/tuple.ts";
import { type ChangeListener, type PlannedColumn, type RelationPlan, Relations } from "./relations.ts";
import { RowBytes } from "./row-bytes.ts";
import { RowText } from "./row-text.ts";
import { type LastGiven, openTransaction, type Transaction } from "./transaction.ts";
import { NotText } from "./values/encoder.ts";
import { nameForm, type TextEncoding, type TextForm, textForm } from "./values/text.ts";

export type { OwnMessage } from "./logical-messages.ts";
export type { TextEncoding } from "./values/text.ts";

/** What `ChangeDecoder` is made of. */
export interface ChangeDecoderOptions {
  readonly pipeline: Pick<LogPipeline, "name" | "topics" | "source">;
  /** Name of the database: `source.db`. */
  readonly database: string;
  readonly epoch: number;
  readonly route: RouteTable;
  readonly catalog: TypeCatalog;
  readonly encoding: TextEncoding;
  /** Which tables the captured names stand for, where that is kept. */
  readonly identities?: TableIdentities | undefined;
  /** Milliseconds since 1970 UTC; the clock of `ts_ms`. */
  readonly now?: () => number;
  /** Changes at or before this position are not given. */
  readonly resumeAfter?: PositionText;
  /** Called at every BEGIN, replayed ones too: the forked-history check (rule 19). An error thrown here leaves `decode`. */
  readonly onBegin?: (commit: CommitFingerprint) => void;
  /** Why changes must not go to a topic, if so: thrown at the first one. */
  readonly refuses?: (topic: string) => TributaryError | undefined;
  /**
   * Takes a change aside that cannot become an event: puts into `out` what is to stand in its place, if anything. Where it gives
   * false, and without it, the error leaves `decode`.
   */
  readonly takeAside?: (change: HeldMessage, error: Error, out: SourceMessage[]) => boolean;
  /** Changes of a transaction that were put aside before, the `asidePlace` of each: they are taken aside again. */
  readonly putAside?: (commitLsn: bigint) => ReadonlySet<string> | undefined;
  /** A row's create was given without a value that did not travel, and that no consumer may have. */
  readonly onIncomplete?: (create: IncompleteCreate) => void;
  /** Called for each table that a TRUNCATE names, replayed ones too. */
  readonly onTruncate?: (oid: number) => void;
  /** Messages of our own. Gives whether the caller sees to the acknowledgement of its place. */
  readonly onMessage?: (message: OwnMessage) => boolean;
}

/**
 * Turns pgoutput messages into routed change events: ordinals (rule 1), keys and partitions (rule 4), the
 * envelope's JSON text. An error leaves it in no defined state: begin anew with `reconnected`.
 */
export class ChangeDecoder {
  readonly #options: ChangeDecoderOptions;
  readonly #now: () => number;
  readonly #relations: Relations;
  readonly #reader: MessageReader;
  readonly #nameForm: TextForm;
  readonly #rowText = new RowText();
  readonly #event = new EventBytes();
  /** What the changes of a transaction share. */
  readonly #shared = new EventBytes();
  readonly #rows = new RowBytes(this.#event, this.#rowText);
  #timed = { now: Number.NaN, bytes: Buffer.alloc(0) };
  readonly #writing = { event: this.#event, rows: this.#rows };
  readonly #row = new Tuple();
  readonly #old = new Tuple();
  readonly #messages: LogicalMessages;
  readonly #outbox: OutboxEvents;

  #transaction: Transaction | undefined;
  /** LSN of the message being read, its upper and lower 32 bits. */
  #lsnHigh = 0;
  #lsnLow = 0;
  readonly #showLsn = () => this.#lsnText;
  /** Commit LSN of the last BEGIN on this connection. */
  #lastBegin = -1n;
  #lastCommit = -1n;
  /** Position of the last change given, in its two parts. */
  readonly #given: LastGiven = { commitLsn: -1n, ordinal: 0 };

  constructor(options: ChangeDecoderOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    const text = textForm(options.encoding);
    this.#nameForm = nameForm(options.encoding);
    this.#reader = new MessageReader(this.#nameForm);
    this.#outbox = new OutboxEvents({ ...options, now: this.#now });
    this.#relations = new Relations({ ...options, text, outbox: this.#outbox });
    let given = "";
    if (options.resumeAfter !== undefined) {
      const { epoch, commitLsn, ordinal } = parsePosition(options.resumeAfter);
      given = commitPrefix(epoch, commitLsn);
      // Of another epoch all were given, or none.
      const all = epoch > options.epoch ? MAX_LSN : -1n;
      this.#given.commitLsn = epoch === options.epoch ? commitLsn : all;
      this.#given.ordinal = ordinal;
    }
    this.#messages = new LogicalMessages({
      ...options,
      now: this.#now,
      // Messages have ordinals of their own: those of the same transaction may come twice, none is lost.
      resumeAfter: given && given + formatOrdinal(0),
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
    let plan = relations.get(relation.oid) as RelationPlan;
    // What is read beside the log is as it is now.
    while (plan.later) plan = plan.later.plan;
    return plan;
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
    this.#lsnHigh = lsnHigh;
    this.#lsnLow = lsnLow;
    const before = out.length;
    try {
      this.#reader.open(buffer, start, end);
      return this.#decode(out);
    } catch (error) {
      const failure =
        error instanceof EventTooLong || isStringTooLong(error)
          ? new ChangeTooLargeError({ lsn: this.#lsnText, bytes: end - start })
          : error instanceof NotName
            ? new NameEncodingError({ ...error, lsn: this.#lsnText }, true)
            : error;
      const payload = buffer.subarray(start, end);
      const isOne = failure instanceof PutAsideBefore || isOfOneChange(failure);
      if (!isOne || !this.#setAside(failure, payload, out, before)) throw failure;
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

  /**
   * Takes the change aside that was being decoded: its ordinals are counted, and events that it gave already (a key change's
   * delete), from place `before` of `out` on, are taken back. Returns false where that cannot be.
   */
  #setAside(error: Error, payload: Buffer, out: SourceMessage[], before: number): boolean {
    const transaction = this.#transaction;
    const ordinals = payload.length < 5 ? undefined : ORDINALS.get(payload[0] as number);
    const plan = ordinals && this.#planBefore(payload.readUInt32BE(1), ordinals);
    if (!this.#options.takeAside || !transaction || !plan || plan.outbox) return false;
    for (const message of out.splice(before)) if (message instanceof EncodedChange) message.release();
    const why = error instanceof TributaryError ? because(error, plan) : error;
    return this.#takeAside(plan, transaction, ordinals, Buffer.from(payload), why, out);
  }

  /** The plan of a change whose ordinals are counted already. */
  #planBefore(oid: number, ordinals: number): RelationPlan | undefined {
    const transaction = this.#transaction;
    if (!transaction) return undefined;
    transaction.ordinal -= ordinals;
    const plan = this.#relations.get(oid);
    const here = plan && this.#planHere(plan);
    transaction.ordinal += ordinals;
    return here;
  }

  #takeAside(
    { topic, table, relation }: RelationPlan,
    transaction: Transaction,
    ordinals: number,
    payload: Buffer,
    error: Error,
    out: SourceMessage[],
  ): boolean {
    const { begin, ordinal } = transaction;
    const position = commitPrefix(this.#options.epoch, begin.commitLsn) + formatOrdinal(ordinal);
    const lsn = (BigInt(this.#lsnHigh) << 32n) | BigInt(this.#lsnLow);
    const place = { topic, position, table, relation, begin, ordinal: ordinal - ordinals, lsn };
    const change: HeldMessage = { kind: "message", ...place, payload };
    if (this.#options.takeAside && error instanceof TributaryError && isOfIdentity(error.code)) {
      const from = commitPrefix(this.#options.epoch, begin.commitLsn) + formatOrdinal(place.ordinal + 1);
      this.#options.identities?.isHeldFrom(table, from);
    }
    if (this.#options.takeAside?.(change, error, out) !== true) return false;
    this.#gave(transaction, ordinal);
    return true;
  }

  get #lsnText(): string {
    return `${this.#lsnHigh.toString(16).toUpperCase()}/${this.#lsnLow.toString(16).toUpperCase()}`;
  }

  #decode(out: SourceMessage[]): Promise<void> | undefined {
    const reader = this.#reader;
    const type = reader.uint8("type of message");
    switch (type) {
      case 0x49:
        reader.named("Insert");
        return this.#insert(out);
      case 0x55:
        reader.named("Update");
        return this.#update(out);
      case 0x44:
        reader.named("Delete");
        return this.#delete(out);
      case 0x42:
        reader.named("Begin");
        return this.#begin(decodeBegin(reader));
      case 0x43:
        reader.named("Commit");
        return this.#commit(out);
      case 0x52:
        reader.named("Relation");
        return this.#relations.learn(decodeRelation(reader, this.#lsnText));
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
        if (refused) throw new UnaskedMessageError({ ...refused, lsn: this.#lsnText });
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
    this.#transaction = openTransaction(begin, this.#options.epoch, this.#given, this.#shared);
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
    out.push({ kind: "commit", endLsn: commit.endLsn, commitTimeMs: timeMs });
  }

  #insert(out: SourceMessage[]): undefined {
    const transaction = this.#open("Insert");
    const plan = this.#relation("Insert");
    const ordinal = ++transaction.ordinal;
    if (plan.outbox) return this.#outboxEvent(out, plan, plan.outbox, transaction, ordinal);
    if (!this.#wanted(plan, transaction, ordinal)) return;
    if (plan.listener !== undefined) this.#reader.isolate();
    decodeInsert(this.#reader, plan.columns.length, this.#row);
    plan.listener?.inserted(this.#reader.buffer, plan, this.#row);
    const { event, rows } = this.#begun(plan);
    event.copy(INSERT);
    rows.row(this.#row, undefined);
    rows.notes();
    this.#give(out, plan, transaction, ordinal, this.#partition(plan, this.#row, undefined), "");
    // A row that comes into the publication's filter by an update is an insert of what the update told.
    if (!rows.isWhole) this.#incomplete(plan, transaction, ordinal, undefined);
  }

  #outboxEvent(
    out: SourceMessage[],
    plan: RelationPlan,
    columns: NonNullable<RelationPlan["outbox"]>,
    transaction: Transaction,
    ordinal: number,
  ): undefined {
    if (ordinal <= transaction.given) return;
    if (columns instanceof Error) throw columns;
    decodeInsert(this.#reader, plan.columns.length, this.#row);
    const text = this.#rowText.begin(this.#reader.buffer, plan, this.#lsnText);
    const value = (column: number) => text.value(this.#row, column);
    out.push(this.#outbox.row(columns, value, transaction, ordinal, this.#lsnText));
    this.#gave(transaction, ordinal);
  }

  #update(out: SourceMessage[]): undefined {
    const transaction = this.#open("Update");
    const plan = this.#relation("Update");
    // Two: the delete part and the create part, whether they become two events or not (rule 1).
    const first = transaction.ordinal + 1;
    const second = first + 1;
    transaction.ordinal = second;
    if (!this.#wanted(plan, transaction, second)) return;
    if (plan.listener !== undefined) this.#reader.isolate();
    const oldRow = decodeUpdate(this.#reader, plan.columns.length, this.#old, this.#row);
    const old = oldRow === "none" ? undefined : this.#old;
    const whole = oldRow === "full" && plan.wholeOldRows;
    if (plan.unseen !== undefined && oldRow !== "full") throw plan.unseen;
    plan.listener?.updated(this.#reader.buffer, plan, this.#row, old, whole);
    const { event, rows } = this.#begun(plan);
    const partition = this.#partition(plan, this.#row, old);
    if (old !== undefined && rows.keyChanged(old, this.#row)) {
      const keyChange = rows.text().keyChange(old, this.#row);
      if (first > transaction.given) {
        const oldPartition = this.#partition(plan, old, undefined);
        event.copy(DELETE);
        rows.before(old, whole);
        event.copy(NO_AFTER);
        rows.notesOfOld();
        this.#give(out, plan, transaction, first, oldPartition, keyChange);
        event.begin();
      }
      event.copy(INSERT);
      rows.row(this.#row, whole ? old : undefined);
      rows.notes();
      this.#give(out, plan, transaction, second, partition, keyChange);
      if (!rows.isWhole) this.#incomplete(plan, transaction, second, old);
    } else if (first > transaction.given) {
      event.copy(UPDATE);
      if (old === undefined) event.copy(NULL);
      else rows.before(old, whole);
      event.copy(AFTER);
      rows.row(this.#row, whole ? old : undefined);
      rows.notes();
      this.#give(out, plan, transaction, first, partition, "");
    }
  }

  #delete(out: SourceMessage[]): undefined {
    const transaction = this.#open("Delete");
    const plan = this.#relation("Delete");
    const ordinal = ++transaction.ordinal;
    if (!this.#wanted(plan, transaction, ordinal)) return;
    if (plan.listener !== undefined) this.#reader.isolate();
    const oldRow = decodeDelete(this.#reader, plan.columns.length, this.#old);
    if (plan.unseen !== undefined && oldRow !== "full") throw plan.unseen;
    plan.listener?.deleted(this.#reader.buffer, plan, this.#old);
    const { event, rows } = this.#begun(plan);
    event.copy(DELETE);
    rows.before(this.#old, oldRow === "full" && plan.wholeOldRows);
    event.copy(NO_AFTER);
    rows.notesOfOld();
    this.#give(out, plan, transaction, ordinal, this.#partition(plan, this.#old, undefined), "");
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
        if (!this.#takeAside(plan, transaction, 1, truncateOf(oid), problem, out)) throw problem;
        continue;
      }
      // It goes to every partition: a key that is not known is no problem of its.
      if (problem && !isOfOneChange(problem)) throw problem;
      plan.listener?.truncated(plan);
      this.#begun(plan).event.append(TRUNCATE);
      this.#give(out, plan, transaction, ordinal, EVERY_PARTITION, "");
    }
  }

  /** Whether a change is to be given, `last` being the last of its ordinals. */
  #wanted(plan: RelationPlan, transaction: Transaction, last: number): boolean {
    if (!plan.captured || last <= transaction.given) return false;
    if (transaction.aside?.has(asidePlace(plan.topic.name, last))) throw new PutAsideBefore();
    if (plan.problem) throw plan.problem;
    return true;
  }

  /** `,"ts_ms":…,"source":{`, as of now. */
  #time(): Buffer {
    const now = this.#now();
    if (now !== this.#timed.now) this.#timed = { now, bytes: Buffer.from(`,"ts_ms":${now},"source":{`) };
    return this.#timed.bytes;
  }

  /** Begins an event of this relation and message. */
  #begun(plan: RelationPlan): { readonly event: EventBytes; readonly rows: RowBytes } {
    this.#event.begin();
    this.#rows.begin(this.#reader.buffer, plan, this.#showLsn);
    return this.#writing;
  }

  #partition(plan: RelationPlan, row: Tuple, old: Tuple | undefined): number {
    const { partitions } = plan.topic;
    const hash = this.#rows.keyHash(row, old);
    return hash === undefined
      ? partitionOf(this.#rows.text().keyText(row, old), partitions)
      : hash % partitions;
  }

  /** Gives the event whose rows are written: closes it with its time and source, its position behind. */
  #give(
    out: SourceMessage[],
    plan: RelationPlan,
    transaction: Transaction,
    ordinal: number,
    partition: number,
    keyChange: string,
  ): void {
    const event = this.#event;
    const { bytes, head, tail, prefix, end } = transaction;
    event.append(this.#time());
    event.append(plan.sourceHeadBytes);
    event.copy(bytes, head, tail);
    event.hex(this.#lsnHigh);
    event.copy(SLASH);
    event.hex(this.#lsnLow);
    event.copy(bytes, tail, prefix);
    event.number(ordinal);
    event.append(plan.sourceTailBytes);
    if (keyChange !== "") event.text(keyChange);
    event.close(POSITION_BYTES);
    event.copy(bytes, prefix, end);
    event.number(ordinal, ORDINAL_DIGITS);
    out.push(new EncodedChange(plan.topic, partition, plan.table, event));
    this.#gave(transaction, ordinal);
  }

  /** Tells of a create that was given without all of its row's values. */
  #incomplete(plan: RelationPlan, transaction: Transaction, ordinal: number, old: Tuple | undefined): void {
    const { onIncomplete, epoch } = this.#options;
    if (!onIncomplete) return;
    const { commitLsn } = transaction.begin;
    const { table } = plan;
    const key = this.#keyTexts(plan, old);
    onIncomplete({
      table,
      key,
      position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
      commitLsn,
    });
  }

  /** The texts of the row's key by column, for a look at the table; undefined: no text that a query could hold. */
  #keyTexts({ watched, columns }: RelationPlan, old: Tuple | undefined): Record<string, string> | undefined {
    const { buffer } = this.#reader;
    const texts: Record<string, string> = {};
    for (const i of watched) {
      const from = this.#row.start[i] === UNCHANGED && old !== undefined ? old : this.#row;
      try {
        const text = this.#nameForm.decode(buffer, from.start[i] as number, from.end[i] as number);
        texts[(columns[i] as PlannedColumn).name] = text;
      } catch (error) {
        if (error instanceof NotText) return undefined;
        throw error;
      }
    }
    return texts;
  }

  #gave(transaction: Transaction, ordinal: number): void {
    this.#given.commitLsn = transaction.begin.commitLsn;
    this.#given.ordinal = ordinal;
  }

  #message(out: SourceMessage[]): undefined {
    const message = decodeLogicalMessage(this.#reader);
    const transaction = message.transactional ? this.#open("Message") : undefined;
    const held = this.#messages.take(message, transaction, transaction ? ++transaction.messages : 1, out);
    // All commits before a message outside transactions have been given: its place may be acknowledged.
    if (!this.inTransaction && !held) out.push({ kind: "idle", lsn: message.lsn });
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

  /** Of the plans of a relation, the one of the change that comes next. */
  #planHere(first: RelationPlan): RelationPlan {
    const { begin, ordinal, epoch } = this.#transaction as Transaction;
    let plan = first;
    while (plan.later) {
      const { from } = plan.later;
      const reached =
        epoch > from.epoch ||
        (epoch === from.epoch &&
          (begin.commitLsn > from.commitLsn ||
            (begin.commitLsn === from.commitLsn && ordinal + 1 >= from.ordinal)));
      if (!reached) break;
      plan = plan.later.plan;
    }
    return plan;
  }

  #outOfOrder(type: string, expected: string, got: string): MessageOrderError {
    return new MessageOrderError({ type, lsn: this.#lsnText, expected, got });
  }
}

/** The Truncate message of one relation. */
function truncateOf(oid: number): Buffer {
  const message = Buffer.from([0x54, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
  message.writeUInt32BE(oid, 6);
  return message;
}

/** Why a change cannot be given, where its table has another key by now: that it lacks a value of the old one follows from it. */
function because(error: TributaryError, plan: RelationPlan): TributaryError {
  if (!(error instanceof KeyValueMissingError)) return error;
  for (let later = plan.later; later; later = later.plan.later)
    if (later.plan.problem instanceof KeyChangedError) return later.plan.problem;
  return error;
}

/** Ordinals that a message counts, by its type: Insert, Update, Delete (rule 1). */
const ORDINALS = new Map([
  [0x49, 1],
  [0x55, 2],
  [0x44, 1],
]);
const INSERT = Buffer.from('{"op":"c","before":null,"after":');
const UPDATE = Buffer.from('{"op":"u","before":');
const DELETE = Buffer.from('{"op":"d","before":');
const TRUNCATE = Buffer.from('{"op":"t","before":null,"after":null');
const NULL = Buffer.from("null");
const AFTER = Buffer.from(',"after":');
const NO_AFTER = Buffer.from(',"after":null');
const SLASH = Buffer.from("/");
const ORDINAL_DIGITS = 10;
const MAX_LSN = 0xffffffffffffffffn;

/** Node's two ways to say that a text passes V8's limit of about 512 million characters. */
function isStringTooLong(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  return (
    code === "ERR_STRING_TOO_LONG" ||
    (error instanceof RangeError && error.message === "Invalid string length")
  );
}
