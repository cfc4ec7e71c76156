import type { PositionText } from "../../../change/position.ts";
import { defineError, type TributaryError } from "../../../change/tributary-error.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import { KeyChangedError, TableReplacedError } from "../identity/identity-errors.ts";

/** A place in a message at which its bytes are not what the protocol says. */
export interface Malformation {
  /** The message: `Relation`, `Insert`… */
  readonly type: string;
  /** Byte offset inside the message. */
  readonly offset: number;
  readonly expected: string;
  readonly got: string;
}

/** The bytes of a replication message are not of the form that PostgreSQL documents. */
export class MalformedMessageError extends defineError("PGOUTPUT_MALFORMED", "stop").from(
  (malformation: Malformation) => {
    const { type, offset, expected, got } = malformation;
    return {
      message: `pgoutput ${type} message, offset ${offset}: expected ${expected}, got ${got}`,
      remedy:
        "Check that the server is PostgreSQL 14 or newer and that no proxy stands between; then report this with the server's version.",
      malformation,
    };
  },
) {}

/** A well-formed message came where the protocol has no place for it: the stream lost or doubled something. */
export class MessageOrderError extends defineError("PGOUTPUT_ORDER", "restart").from(
  (facts: { type: string; lsn: string; expected: string; got: string }) => ({
    message: `pgoutput ${facts.type} message at ${facts.lsn}: expected ${facts.expected}, got ${facts.got}`,
    remedy:
      "Nothing behind the last acknowledged position was confirmed: a restart reads it again. If it comes back, report it with the server's version.",
  }),
) {}

/** The server sends a message of a later protocol, which holds rows of a transaction whose commit is not known. */
export class UnaskedMessageError extends defineError("PGOUTPUT_UNASKED", "stop").from(
  (facts: { name: string; protocol: number; lsn: string }) => ({
    message: `pgoutput ${facts.name} message at ${facts.lsn}: it belongs to protocol ${facts.protocol}, and protocol 1 was asked for`,
    remedy:
      "Nothing behind the last acknowledged position was confirmed. Check that no proxy stands between that changes the options of START_REPLICATION; then report this with the server's version.",
  }),
) {}

/** Place of a value. Names only: values never enter an error. */
export interface ValuePlace {
  /** As people write it: `public.orders`. */
  readonly table: string;
  readonly column: string;
  /** The change's own WAL position, as PostgreSQL prints it. */
  readonly lsn: string;
}

/** A way past a place of the log that cannot be decoded: to correct a row does not correct what the log holds of it. */
const BEGIN_ANEW = `then begin a new epoch, which reads the tables again: ${NEW_EPOCH_DROP_SLOT}. What the log already holds stays as it is.`;

/** The column that an error is of, where it is of one. */
export function columnOf(error: unknown): string | undefined {
  const isOfValue =
    error instanceof TextEncodingError ||
    error instanceof ValueFormatError ||
    error instanceof KeyValueMissingError;
  return isOfValue ? error.column : undefined;
}

/**
 * Bytes are no text in the encoding of the database, so no character of them may be guessed: in an SQL_ASCII database they are not
 * UTF-8, in others they are bytes that the encoding gives to no character.
 */
export class TextEncodingError extends defineError("TEXT_ENCODING", "stop").from(
  (place: ValuePlace, encoding = "UTF-8") => {
    const correct = `correct the row, or leave the column out with source.excludeColumns, ${BEGIN_ANEW}`;
    return {
      message: `${place.table}, column ${place.column}, change at ${place.lsn}: the text is not valid ${encoding}`,
      remedy:
        encoding === "UTF-8"
          ? `If the database holds latin1, set source.sqlAsciiEncoding to "latin1" and start again: each byte is a character then. Else ${correct}`
          : `${correct[0]?.toUpperCase()}${correct.slice(1)}`,
      column: place.column,
    };
  },
) {}

/** The name of a table or column is no text in the encoding of the database. */
export class NameEncodingError extends defineError("NAME_ENCODING", "stop").from(
  (facts: NoName, ofTable = false) => {
    const unknown = "; which table that is cannot be told, so no topic can be held for it";
    return {
      message: `the name of ${facts.what}, as the log has it at ${facts.lsn}, is not valid ${facts.encoding}: ${facts.shown}${ofTable ? unknown : ""}`,
      remedy: `Rename it (ALTER TABLE … RENAME), or leave the table out with source.exclude, ${BEGIN_ANEW}`,
    };
  },
) {}

/** A value's text is not what its type prints under our session settings. */
export class ValueFormatError extends defineError("VALUE_FORMAT", "stop").from(
  (place: ValuePlace, expected: string) => ({
    message: `${place.table}, column ${place.column}, change at ${place.lsn}: expected ${expected}`,
    remedy:
      "Check that no pooler between us and the server drops the session settings of the startup packet; then report this with the column's type.",
    column: place.column,
  }),
) {}

/** A row change is too large to become one JSON text in this process (about 500 MB). */
export class ChangeTooLargeError extends defineError("CHANGE_TOO_LARGE", "stop").from(
  (facts: { lsn: string; bytes: number }) => ({
    message: `the change at ${facts.lsn} has ${facts.bytes} bytes: more than one event can hold`,
    remedy: "Leave its large column out with source.excludeColumns.",
  }),
) {}

/** A key column is null or did not travel: the change has no partition (rule 4). */
export class KeyValueMissingError extends defineError("KEY_VALUE_MISSING", "stop").from(
  (place: ValuePlace) => ({
    message: `${place.table}, column ${place.column}, change at ${place.lsn}: the key column has no value`,
    remedy:
      "Make the column NOT NULL and part of the replica identity, or choose another key in topics.keys.",
    column: place.column,
  }),
) {}

/** A key column cannot serve: it is not in the table, or not in its replica identity (rule 4). */
export class KeyColumnError extends defineError("KEY_COLUMN", "stop").from(
  (facts: { table: string; column: string; problem: "not in the table" | "not in the identity" }) => ({
    message: `${facts.table}: key column ${facts.column} is not ${
      facts.problem === "not in the table" ? "among the columns that travel" : "part of the replica identity"
    }`,
    remedy:
      facts.problem === "not in the table"
        ? "Correct topics.keys, or publish the column."
        : `ALTER TABLE ${facts.table} REPLICA IDENTITY FULL, or USING an index that holds the column; or choose another key in topics.keys.`,
  }),
) {}

/** Nobody knows the primary key of a table with replica identity full at the time of a change, and so where the change goes. */
export class KeyUnknownError extends defineError("KEY_UNKNOWN", "stop").from((facts: { table: string }) => ({
  message: `${facts.table} has replica identity full, and its primary key is not known for this change: it was dropped, or columns of its key were renamed several times, before the change was read`,
  remedy: `Name the columns of its primary key in topics.keys, as "${facts.table}": ["id"].`,
})) {}

/** The catalog did not answer in time, or refused. */
export class CatalogLookupError extends defineError("CATALOG_LOOKUP", "retry").from(
  (facts: { what: string; cause?: unknown }) => ({
    message: `looking up ${facts.what} in the catalog failed`,
    remedy: "It is tried again. If it goes on, look for locks on the catalog and for the server's load.",
    cause: facts.cause,
  }),
) {}

/** The outbox table lacks a column that an event needs. */
export class OutboxTableError extends defineError("OUTBOX_TABLE", "stop").from((table: string) => ({
  message: `${table} is no outbox table: it must publish id, aggregate_type, aggregate_id, type and payload`,
  remedy: "Make it with `tributary outbox install`, or correct source.outbox.table.",
})) {}

/** A row of the outbox table, or a message of its prefix, is no event. Names fields, never values. */
export class OutboxMalformedError extends defineError("OUTBOX_MALFORMED", "stop").from(
  (facts: { form: "row" | "message"; lsn: string; problem: string }) => ({
    message: `the outbox ${facts.form} at ${facts.lsn} is no event: ${facts.problem}`,
    remedy:
      'Correct the application that wrote it. To go on past what is in the log, set source.outbox.malformed to "quarantine": it then goes, whole, to the topic $outbox-malformed.',
  }),
) {}

/** One topic would be given rows and messages, whose positions inside a transaction count apart. */
export class OutboxFormsMixedError extends defineError("OUTBOX_FORMS_MIXED", "stop").from(
  (facts: { topic: string }) => ({
    message: `the topic ${facts.topic} would be given both rows and outbox messages: their order cannot be told`,
    remedy:
      "In one transaction publish events of an aggregate type by the table or by messages, not by both; and let topics.routes send no table to a topic of outbox messages.",
  }),
) {}

/** Returns true if an error is of one change or one table: what stands beside it in the log can still be given, if the table is known. */
export function isOfOneChange(error: unknown): error is TributaryError {
  return OF_ONE_CHANGE.some((kind) => error instanceof kind);
}

/** Returns true if it is only this change that cannot become an event: what a table stands for now is an operator's to say for all that follow. */
export function isOfItsContent(error: Error): boolean {
  return !(error instanceof KeyChangedError || error instanceof TableReplacedError);
}

/** Adds to an error that ends the stream how it goes on without the one change. */
export function offerToPutAside(error: TributaryError, position: PositionText): void {
  const remedy = `${error.remedy} Or put this one change aside and go on: tributary capture dead-letter --at ${position}`;
  Object.assign(error, { remedy });
}

const OF_ONE_CHANGE = [
  TextEncodingError,
  ValueFormatError,
  ChangeTooLargeError,
  KeyValueMissingError,
  KeyColumnError,
  KeyUnknownError,
  KeyChangedError,
  TableReplacedError,
  // Of a message whose table is known.
  MalformedMessageError,
  NameEncodingError,
];

/** A name that is no text in the encoding it should be in. */
export interface NoName {
  readonly what: string;
  readonly shown: string;
  readonly encoding: string;
  /** Its place in the log. */
  readonly lsn: string;
}
