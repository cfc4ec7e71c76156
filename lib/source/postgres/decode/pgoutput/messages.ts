import type { NoName } from "../decode-errors.ts";
import { type MessageReader, NotName, showByte } from "./reader.ts";

/*
 * The messages of pgoutput that hold no row and that a server sends in protocol 1: one struct and one decode each. Rows: row-change.ts.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-BEGIN */
export interface Begin {
  /** LSN of the transaction's commit record. */
  readonly commitLsn: bigint;
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTime: bigint;
  readonly xid: number;
}

/** Reads a Begin behind its type byte. @throws MalformedMessageError */
export function decodeBegin(reader: MessageReader): Begin {
  const commitLsn = reader.uint64("final LSN");
  const commitTime = reader.int64("commit time");
  const xid = reader.uint32("transaction id");
  reader.close();
  return { commitLsn, commitTime, xid };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-COMMIT */
export interface Commit {
  readonly commitLsn: bigint;
  /** End of the commit record. */
  readonly endLsn: bigint;
  /** Microseconds since 2000-01-01 UTC. */
  readonly commitTime: bigint;
}

/** Reads a Commit behind its type byte. @throws MalformedMessageError */
export function decodeCommit(reader: MessageReader): Commit {
  const flags = reader.uint8("flags");
  if (flags !== 0) throw reader.malformed("flags 0", String(flags), 1);
  const commitLsn = reader.uint64("commit LSN");
  const endLsn = reader.uint64("end LSN");
  const commitTime = reader.int64("commit time");
  reader.close();
  return { commitLsn, endLsn, commitTime };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-ORIGIN */
export interface Origin {
  readonly commitLsn: bigint;
  readonly name: string;
}

/** Reads an Origin behind its type byte. @throws MalformedMessageError */
export function decodeOrigin(reader: MessageReader): Origin {
  const commitLsn = reader.uint64("commit LSN at the origin");
  const name = reader.string("name of the origin");
  reader.close();
  return { commitLsn, name };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-STREAM-ABORT */
export interface StreamAbort {
  /** The top-level transaction. */
  readonly xid: number;
  /** The transaction that was rolled back: a subtransaction, or `xid` itself. */
  readonly subXid: number;
}

/**
 * Reads a Stream Abort behind its type byte. With `streaming = parallel` (protocol 4) the LSN and the time of the abort follow.
 *
 * It is of protocol 2, and PostgreSQL 18 sends it in protocol 1 as well: a transaction that is found rolled back when its
 * changes outgrow `logical_decoding_work_mem` has its subtransactions marked as streamed, though nothing of them was sent.
 * @throws MalformedMessageError
 */
export function decodeStreamAbort(reader: MessageReader): StreamAbort {
  const xid = reader.uint32("transaction id");
  const subXid = reader.uint32("subtransaction id");
  if (!reader.atEnd) {
    reader.uint64("abort LSN");
    reader.int64("abort time");
  }
  reader.close();
  return { xid, subXid };
}

/** The part of the old row that an UPDATE or DELETE carries. */
export type ReplicaIdentity = "default" | "nothing" | "full" | "index";

const IDENTITIES: Readonly<Record<string, ReplicaIdentity>> = {
  d: "default",
  n: "nothing",
  f: "full",
  i: "index",
};

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-RELATION */
export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  readonly identity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
  /** A column's name is no text, and stands here as it is shown: changes of the table cannot be given. */
  readonly noName?: NoName | undefined;
}

/** A published column of a relation, in the order of its tuples. */
export interface RelationColumn {
  /** Part of the replica identity. With identity full, every column says so. */
  readonly key: boolean;
  readonly name: string;
  readonly type: number;
  readonly modifier: number;
}

/**
 * Reads a Relation behind its type byte, told at `lsn`.
 * @throws MalformedMessageError; NotName where it cannot be known which table it is.
 */
export function decodeRelation(reader: MessageReader, lsn = ""): Relation {
  const oid = reader.uint32("relation OID");
  // pg_catalog travels as the empty string.
  const schema = reader.name(`the schema of the table with OID ${oid}`) || "pg_catalog";
  const table = reader.name(`the table with OID ${oid} in schema "${schema}"`);
  const byte = reader.uint8("replica identity");
  const identity = IDENTITIES[String.fromCharCode(byte)];
  if (identity === undefined)
    throw reader.malformed("a replica identity: 'd', 'n', 'f' or 'i'", showByte(byte), 1);
  const count = reader.count16("number of columns");
  const columns: RelationColumn[] = [];
  let noName: NoName | undefined;
  const nameOf = (column: number) => {
    try {
      return reader.name(`column ${column} of the table ${schema}.${table}`);
    } catch (error) {
      if (!(error instanceof NotName)) throw error;
      const { what, shown, encoding } = error;
      noName ??= { what, shown, encoding, lsn };
      return shown;
    }
  };
  for (let i = 0; i < count; i++) {
    const flags = reader.uint8("flags of a column");
    columns.push({
      key: (flags & 1) === 1,
      name: nameOf(i + 1),
      type: reader.uint32("type of a column"),
      modifier: reader.int32("type modifier of a column"),
    });
  }
  reader.close();
  return { oid, schema, table, identity, columns, ...(noName && { noName }) };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TYPE */
export interface Type {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
}

/** Reads a Type behind its type byte. @throws MalformedMessageError */
export function decodeType(reader: MessageReader): Type {
  const oid = reader.uint32("type OID");
  const schema = reader.string("schema") || "pg_catalog";
  const name = reader.string("name of the type");
  reader.close();
  return { oid, schema, name };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TRUNCATE */
export interface Truncate {
  readonly cascade: boolean;
  readonly restartIdentity: boolean;
  readonly relations: readonly number[];
}

/** Reads a Truncate behind its type byte. @throws MalformedMessageError */
export function decodeTruncate(reader: MessageReader): Truncate {
  const count = reader.int32("number of relations");
  if (count < 0) throw reader.malformed("number of relations of 0 or more", String(count), 4);
  const flags = reader.uint8("flags");
  if (flags > 3) throw reader.malformed("flags 0 to 3", String(flags), 1);
  const relations: number[] = [];
  for (let i = 0; i < count; i++) relations.push(reader.uint32("relation OID"));
  reader.close();
  return { cascade: (flags & 1) === 1, restartIdentity: (flags & 2) === 2, relations };
}

/** https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-MESSAGE */
export interface EmittedMessage {
  readonly transactional: boolean;
  /** End of the message's record: where the next one, a commit perhaps, may begin. */
  readonly lsn: bigint;
  readonly prefix: string;
  /** A view on the message, not a copy. */
  readonly content: Buffer;
}

/**
 * The LSN in the positions of what stands at a message outside transactions. It comes with the end of its record, where a
 * commit's record may begin whose changes have that LSN: the byte before is the message's alone.
 */
export function placeOfMessage(lsn: bigint): bigint {
  return lsn - 1n;
}

/** Reads a Message behind its type byte. @throws MalformedMessageError */
export function decodeLogicalMessage(reader: MessageReader): EmittedMessage {
  const flags = reader.uint8("flags");
  if (flags > 1) throw reader.malformed("flags 0 or 1", String(flags), 1);
  const lsn = reader.uint64("message LSN");
  const prefix = reader.string("prefix");
  const start = reader.sized("content");
  const content = reader.buffer.subarray(start, reader.offset);
  reader.close();
  return { transactional: flags === 1, lsn, prefix, content };
}
