import type { SourceMessage } from "../../../change/change-stream.ts";
import { commitPrefix, formatOrdinal } from "../../../change/position.ts";
import { EVERY_PARTITION } from "../../../change/topic.ts";
import { asidePlace } from "../aside/aside-record.ts";
import { PutAsideBefore } from "../aside/put-aside-before.ts";
import { keyTexts } from "../reread/incomplete-create.ts";
import type { ChangeDecoderOptions } from "./decoder-options.ts";
import type { EventBytes } from "./event-bytes.ts";
import type { EventWriter } from "./event-writer.ts";
import type { OutboxEvents } from "./outbox-events.ts";
import type { MessageReader } from "./pgoutput/reader.ts";
import { decodeDelete, decodeInsert, decodeUpdate } from "./pgoutput/row-change.ts";
import { Tuple } from "./pgoutput/tuple.ts";
import type { RelationPlan } from "./relation-plan.ts";
import type { RowBytes } from "./row-bytes.ts";
import { type LastGiven, lastGiven, type Transaction } from "./transaction.ts";
import type { TextForm } from "./values/text.ts";

const INSERT = Buffer.from('{"op":"c","before":null,"after":');
const UPDATE = Buffer.from('{"op":"u","before":');
const DELETE = Buffer.from('{"op":"d","before":');
const TRUNCATE = Buffer.from('{"op":"t","before":null,"after":null');
const NULL = Buffer.from("null");
const AFTER = Buffer.from(',"after":');
const NO_AFTER = Buffer.from(',"after":null');

/** Dependencies of `RowChanges`. */
export interface RowChangesOptions
  extends Pick<ChangeDecoderOptions, "epoch" | "resumeAfter" | "onIncomplete"> {
  /** Stands behind the relation's OID of the message. */
  readonly reader: MessageReader;
  /** Knows the LSN of the message. */
  readonly writer: EventWriter;
  readonly outbox: OutboxEvents;
  readonly nameForm: TextForm;
}

/** Makes events of Insert, Update and Delete messages, and of the tables of a Truncate; counts their ordinals (rule 1). */
export class RowChanges {
  readonly #options: RowChangesOptions;
  readonly #reader: MessageReader;
  readonly #outbox: OutboxEvents;
  readonly #writer: EventWriter;
  /** Those of the writer. */
  readonly #event: EventBytes;
  readonly #rows: RowBytes;
  readonly #row = new Tuple();
  readonly #old = new Tuple();
  /** The last change given. */
  readonly given: LastGiven;

  constructor(options: RowChangesOptions) {
    this.#options = options;
    this.#reader = options.reader;
    this.#outbox = options.outbox;
    this.#writer = options.writer;
    this.#event = this.#writer.event;
    this.#rows = this.#writer.rows;
    this.given = lastGiven(options.resumeAfter, options.epoch);
  }

  insert(transaction: Transaction, plan: RelationPlan, out: SourceMessage[]): void {
    const ordinal = ++transaction.ordinal;
    if (plan.outbox) {
      this.#outboxEvent(out, plan, plan.outbox, transaction, ordinal);
      return;
    }
    if (!this.#wanted(plan, transaction, ordinal)) return;
    if (plan.listener !== undefined) this.#reader.isolate();
    decodeInsert(this.#reader, plan.columns.length, this.#row);
    plan.listener?.inserted(this.#reader.buffer, plan, this.#row);
    const event = this.#event;
    const rows = this.#rows;
    this.#writer.begin(this.#reader.buffer, plan);
    event.copy(INSERT);
    rows.row(this.#row, undefined);
    rows.notes();
    out.push(
      this.#writer.close(plan, transaction, ordinal, this.#writer.partition(plan, this.#row, undefined), ""),
    );
    this.gave(transaction, ordinal);
    // A row that comes into the publication's filter by an update is an insert of what the update told.
    if (!rows.isWhole) this.#incomplete(plan, transaction, ordinal, undefined);
  }

  #outboxEvent(
    out: SourceMessage[],
    plan: RelationPlan,
    columns: NonNullable<RelationPlan["outbox"]>,
    transaction: Transaction,
    ordinal: number,
  ): void {
    if (ordinal <= transaction.given) return;
    if (columns instanceof Error) throw columns;
    decodeInsert(this.#reader, plan.columns.length, this.#row);
    const text = this.#writer.text.begin(this.#reader.buffer, plan, this.#writer.lsnText);
    const value = (column: number) => text.value(this.#row, column);
    out.push(this.#outbox.row(columns, value, transaction, ordinal, this.#writer.lsnText));
    this.gave(transaction, ordinal);
  }

  update(transaction: Transaction, plan: RelationPlan, out: SourceMessage[]): void {
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
    const event = this.#event;
    const rows = this.#rows;
    this.#writer.begin(this.#reader.buffer, plan);
    const partition = this.#writer.partition(plan, this.#row, old);
    if (old !== undefined && rows.keyChanged(old, this.#row)) {
      const keyChange = rows.text().keyChange(old, this.#row);
      if (first > transaction.given) {
        const oldPartition = this.#writer.partition(plan, old, undefined);
        event.copy(DELETE);
        rows.before(old, whole);
        event.copy(NO_AFTER);
        rows.notesOfOld();
        out.push(this.#writer.close(plan, transaction, first, oldPartition, keyChange));
        this.gave(transaction, first);
        event.begin();
      }
      event.copy(INSERT);
      rows.row(this.#row, whole ? old : undefined);
      rows.notes();
      out.push(this.#writer.close(plan, transaction, second, partition, keyChange));
      this.gave(transaction, second);
      if (!rows.isWhole) this.#incomplete(plan, transaction, second, old);
    } else if (first > transaction.given) {
      event.copy(UPDATE);
      if (old === undefined) event.copy(NULL);
      else rows.before(old, whole);
      event.copy(AFTER);
      rows.row(this.#row, whole ? old : undefined);
      rows.notes();
      out.push(this.#writer.close(plan, transaction, first, partition, ""));
      this.gave(transaction, first);
    }
  }

  delete(transaction: Transaction, plan: RelationPlan, out: SourceMessage[]): void {
    const ordinal = ++transaction.ordinal;
    if (!this.#wanted(plan, transaction, ordinal)) return;
    if (plan.listener !== undefined) this.#reader.isolate();
    const oldRow = decodeDelete(this.#reader, plan.columns.length, this.#old);
    if (plan.unseen !== undefined && oldRow !== "full") throw plan.unseen;
    plan.listener?.deleted(this.#reader.buffer, plan, this.#old);
    const event = this.#event;
    const rows = this.#rows;
    this.#writer.begin(this.#reader.buffer, plan);
    event.copy(DELETE);
    rows.before(this.#old, oldRow === "full" && plan.wholeOldRows);
    event.copy(NO_AFTER);
    rows.notesOfOld();
    out.push(
      this.#writer.close(plan, transaction, ordinal, this.#writer.partition(plan, this.#old, undefined), ""),
    );
    this.gave(transaction, ordinal);
  }

  /** A table of a Truncate message: its event goes to every partition. */
  truncate(transaction: Transaction, plan: RelationPlan, ordinal: number, out: SourceMessage[]): void {
    plan.listener?.truncated(plan);
    this.#writer.begin(this.#reader.buffer, plan);
    this.#event.append(TRUNCATE);
    out.push(this.#writer.close(plan, transaction, ordinal, EVERY_PARTITION, ""));
    this.gave(transaction, ordinal);
  }

  /** A change was given, or taken aside. */
  gave(transaction: Transaction, ordinal: number): void {
    this.given.commitLsn = transaction.begin.commitLsn;
    this.given.ordinal = ordinal;
  }

  /** Returns true if a change is to be given, `last` being the last of its ordinals. */
  #wanted(plan: RelationPlan, transaction: Transaction, last: number): boolean {
    if (!plan.captured || last <= transaction.given) return false;
    if (transaction.aside?.has(asidePlace(plan.topic.name, last))) throw new PutAsideBefore();
    if (plan.problem) throw plan.problem;
    return true;
  }

  /** Tells of a create that was given without all of its row's values. */
  #incomplete(plan: RelationPlan, transaction: Transaction, ordinal: number, old: Tuple | undefined): void {
    const { onIncomplete, epoch } = this.#options;
    if (!onIncomplete) return;
    const { commitLsn } = transaction.begin;
    const { table } = plan;
    const key = keyTexts(plan, this.#reader.buffer, this.#row, old, this.#options.nameForm);
    onIncomplete({
      table,
      key,
      position: commitPrefix(epoch, commitLsn) + formatOrdinal(ordinal),
      commitLsn,
    });
  }
}
