import {
  CAPTURE_STANDS,
  type ErrorSection,
  errorSection,
  NOTHING_DONE,
  TOPIC_HELD,
  TOPIC_HELD_OR_STOP,
} from "./entry.ts";

/** Capture: decoding. */
export const DECODING_ERRORS: ErrorSection = errorSection("Capture: decoding", CAPTURE_STANDS, {
  PGOUTPUT_MALFORMED: {
    retry: "stop",
    meaning: "bytes that are not pgoutput",
    why: "Something between changes the bytes, or the server is newer than this version.",
    remedy: "look for a proxy between, and connect without it; else report it with the server's version",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  PGOUTPUT_ORDER: {
    retry: "restart",
    meaning: "a message in a wrong place",
    why: "The session was disturbed, or the server has a fault.",
    remedy: "nothing; when it repeats, report it with the server's version",
  },
  PGOUTPUT_UNASKED: {
    retry: "stop",
    meaning: "a message of streaming or two-phase decoding, which was not asked for",
    why: "Something between changes the request, or the server has a fault.",
    remedy: "look for a proxy between, and connect without it; else report it with the server's version",
  },
  TEXT_ENCODING: {
    retry: "stop",
    meaning:
      "text that is none in the database's encoding (in SQL_ASCII databases: not UTF-8); the message names table, column, position",
    why: "SQL_ASCII stores bytes unchecked, and these are not UTF-8.",
    remedy:
      '`source.sqlAsciiEncoding: "latin1"`, else correct the row and `tributary capture dead-letter --at <position>`',
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  NAME_ENCODING: {
    retry: "stop",
    meaning: "the name of a table or column is not in the database's encoding",
    why: "SQL_ASCII stores names unchecked, and this one is not UTF-8.",
    remedy:
      "rename it; of a column: put what stands before that aside; of a table: leave it out, and `tributary epoch new --drop-slot`",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  VALUE_FORMAT: {
    retry: "stop",
    meaning: "a value is not what its type prints",
    why: "An extension's type, or a setting such as DateStyle that a function changed.",
    remedy: "`tributary capture dead-letter --at <position>` puts the change aside; report it with the type",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  CHANGE_TOO_LARGE: {
    retry: "stop",
    meaning: "one row makes more than about 500 MB of JSON",
    why: "JavaScript holds no longer text; binary and escaped values grow when they are written as JSON.",
    remedy:
      "leave the column out with `source.excludeColumns`, and put this change aside: `tributary capture dead-letter --at <position>`",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  KEY_VALUE_MISSING: {
    retry: "stop",
    meaning: "a key column is null or did not travel",
    why: "A key column allows NULL, or is not in the replica identity, so a delete or update does not carry it.",
    remedy:
      "make the column NOT NULL and part of the replica identity; this change: `tributary capture dead-letter --at <position>`",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  KEY_COLUMN: {
    retry: "stop",
    meaning: "a key column left the table or its replica identity",
    why: "ALTER TABLE dropped or renamed the column, or chose another replica identity.",
    remedy: "put the column back, or change `topics.keys`; then `tributary capture release --topic <topic>`",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  KEY_UNKNOWN: {
    retry: "stop",
    meaning: "nobody knows the key that a table with replica identity FULL had at this change",
    why: "The table changed between the change and its reading, and the log of a table with REPLICA IDENTITY FULL does not say which columns are the key.",
    remedy:
      "do what the message says of the table, or put the change aside: `tributary capture dead-letter --at <position>`",
    ifNothing: TOPIC_HELD_OR_STOP,
  },
  CATALOG_LOOKUP: {
    retry: "retry",
    meaning: "the catalog did not answer",
    why: "A type's name is read from pg_type; the session for that was lost or the server was busy.",
    remedy: "nothing; when it repeats, look at the server's load, and at the role's rights on `pg_catalog`",
  },
  TABLES_LINK: {
    retry: "retry",
    meaning: "(triggers, polling) the session that reads the tables was lost",
    why: "A restart of the server, or an interrupted network.",
    remedy: "nothing; when it repeats, look at the network and at the server's log",
    ifNothing: "It connects again by itself. Changes wait in their tables.",
  },
  POLLING_KEYS_FULL: {
    retry: "stop",
    meaning: "(polling with `deletes`) the compared tables hold more rows than keys can be held",
    why: "Deletes are found by comparing the keys of all rows with those that were there, in memory.",
    remedy: "name the smaller ones in `source.deletes.tables`",
    ifNothing:
      "Capture stays down; changes wait in their tables. Deletes that happen meanwhile are found at the next start.",
  },
  POLLED_KEY_CHANGED: {
    retry: "restart",
    meaning: "(polling) a table has another primary key than the one that its pages go by",
    why: "ALTER TABLE replaced the primary key while pages were read by the old one.",
    remedy: "nothing: the next start reads on by the new key ([polling](14-other-sources.md#polling))",
  },
  TABLES_READ: {
    retry: "stop",
    meaning:
      "(triggers, polling) the server refuses what is asked of the tables, or an audit row cannot be read",
    why: "A privilege was revoked, a column is gone, or an audit row was edited.",
    remedy: "grant or repair what the message names, and start again",
    ifNothing: "Capture stays down; changes wait in their tables.",
  },
  TRIGGERS_REFUSED: {
    retry: "stop",
    meaning:
      "the server did not let `tributary triggers install` or `tributary triggers uninstall`; nothing was changed",
    why: "CREATE TRIGGER needs the owner of the table, or the TRIGGER privilege.",
    remedy: "do what the message says: most often the owner of the tables must run it",
    ifNothing: NOTHING_DONE,
  },
  READING_CHANGED: {
    retry: "stop",
    meaning: "another kind of source, or another database, than the pipeline has read so far",
    why: "Positions of one kind of source or database mean nothing in another.",
    remedy: "put the source back in the definition, or `tributary epoch new`",
  },
  OUTBOX_TABLE: {
    retry: "stop",
    meaning: "the outbox table lacks a column that an event needs",
    why: "The table was made by hand or by another library, or a column was dropped.",
    remedy: "`tributary outbox install`, or correct `source.outbox.table`",
  },
  OUTBOX_MALFORMED: {
    retry: "stop",
    meaning: "a row or message of the outbox is no event",
    why: "The application wrote a row or message without the fields of an event, by other means than publish().",
    remedy: 'correct the application; `source.outbox.malformed: "quarantine"` goes on without it',
  },
  OUTBOX_FORMS_MIXED: {
    retry: "stop",
    meaning: "one topic would be given rows and outbox messages",
    why: "Rows and logical messages are read in two ways, between which no order can be kept.",
    remedy: "publish an aggregate type one way; `topics.routes` parts them",
  },
  OUTBOX_RELAY: {
    retry: "stop",
    meaning: "the database refuses what a relay asks of its tables",
    why: "The role lacks a privilege on the outbox tables, or they were changed.",
    remedy: "`tributary outbox plan` prints tables and grants: run what is missing",
    ifNothing: "The relay stays down; events wait in the outbox table, in order.",
  },
  OUTBOX_ROW: {
    retry: "stop",
    meaning: "a row that a relay reads is no event",
    why: "The application wrote a row past the constraints of the table, or they were dropped.",
    remedy: 'correct or delete it; `source.malformed: "quarantine"` goes on',
    ifNothing: "The relay stays down; events wait in the outbox table, in order.",
  },
  OUTBOX_LANE: {
    retry: "stop",
    meaning: "a row stands in the lane of other partitions",
    why: "The table was installed for another number of partitions, or its column lane was changed.",
    remedy: "`tributary outbox plan` prints how to make the table anew",
    ifNothing: "The relay stays down; events wait in the outbox table, in order.",
  },
  OUTBOX_DATABASE: {
    retry: "retry",
    meaning: "a relay's session was lost",
    why: "A restart of the server, or an interrupted network.",
    remedy: "nothing; when it repeats, look at the network and at the server's log",
    ifNothing: "It connects again by itself. Events wait in the outbox table.",
  },
  OUTBOX_EVENT: {
    retry: "stop",
    meaning: "(in the application) what is published is no event; nothing was written",
    why: "A field is missing, or of another type than an event's.",
    remedy: "correct the fields that the message names, in the application",
    ifNothing: "The application's transaction is as it decides; the event is not in the outbox.",
  },
});

/** Capture: held topics. */
export const HOLD_ERRORS: ErrorSection = errorSection("Capture: held topics", CAPTURE_STANDS, {
  HOLD_FULL: {
    retry: "stop",
    meaning: "10 GiB of a held topic's changes are stored: from here on the server keeps the log",
    why: "A topic was held for so long, or writes so much, that its store reached its bound.",
    remedy: "correct what `tributary capture status` names, then `tributary capture release --topic <topic>`",
    ifNothing:
      "Capture goes no further: PostgreSQL keeps WAL for all topics until the slot is lost or the disk is full.",
  },
  TABLE_REPLACED: {
    retry: "restart",
    meaning:
      "a captured name stands for another table, or its table has another name: swapped, renamed, moved to another schema, dropped and made anew. The topic is held",
    why: "A migration swapped, renamed or re-made the table (pg_repack and online schema changes do), and changes of the new one may not be changes of the old one.",
    remedy:
      'to go on with the table that has the name now, which is read anew: `tributary capture release --topic <topic>`; or give the name back first (`ALTER TABLE … RENAME`): [PostgreSQL](05-postgres.md), "A name is not a table"',
    ifNothing: TOPIC_HELD,
  },
  KEY_CHANGED: {
    retry: "stop",
    meaning:
      "a table's rows have another key than before, and would go to other partitions. The topic is held",
    why: "ALTER TABLE changed the primary key or the replica identity, by which rows are partitioned.",
    remedy:
      "to go on with the new key: `tributary capture release --topic <topic>`; or put the old key back first",
    ifNothing: TOPIC_HELD,
  },
  TABLE_ACCEPTED: {
    retry: "restart",
    meaning: "a released topic goes on with another table, which the publication does not hold yet",
    why: "A release was told to go on with the table that has the name now.",
    remedy: "nothing: the task starts anew",
    ifNothing: "The task starts again, and goes on.",
  },
  HOLD_SEGMENT: {
    retry: "stop",
    meaning: "stored changes of a held topic were altered, or are of a newer version; its release stopped",
    why: "An object in the bucket was overwritten or deleted, or a newer version of capture stored it before a rollback.",
    remedy:
      "restore the object, or run the version that wrote it; then `tributary capture release --topic <topic>`",
    ifNothing: TOPIC_HELD,
  },
  HOLD_STORE_MISSING: {
    retry: "stop",
    meaning: "topics are held, and the capture task knows no claim store",
    why: "The variable was removed while changes of held topics are stored in the bucket.",
    remedy: "set `TRIBUTARY_CLAIM_BUCKET` to what it was",
  },
  TABLE_NOT_UNHEALED: {
    retry: "stop",
    meaning: "`tributary capture release` names a table of which nothing is missing",
    why: "It was healed by a backfill, accepted before, or never affected.",
    remedy: "name one that `tributary capture status` lists",
    ifNothing: NOTHING_DONE,
  },
  CAPTURE_QUEUE_MISSING: {
    retry: "stop",
    meaning: "changes are to be put aside, and the capture task knows no dead-letter queue",
    why: "The definition or a command asks for changes to be put aside, and the task's environment names no queue.",
    remedy: "set `TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL` in the task's environment (a deploy does)",
  },
  PAUSED_ALREADY: {
    retry: "stop",
    meaning: "somebody paused this consumer, or capture, before; the message tells who, when and why",
    why: "A pause has one owner, so that nobody ends somebody else's without knowing.",
    remedy: "nothing: it stays paused. Ask them before you resume it",
    ifNothing: "It stays paused as it was.",
  },
  MAPPING_NOT_ENABLED: {
    retry: "stop",
    meaning:
      "`tributary consumer resume --consumer <consumer>` may not enable the consumer's event source mapping, or Lambda does not answer",
    why: "The caller lacks lambda:UpdateEventSourceMapping on it, or names another account or region.",
    remedy: "permit `lambda:UpdateEventSourceMapping`, then repeat it",
    ifNothing: "The consumer stays paused; its changes wait in the stream until their retention is over.",
  },
  NOT_PAUSED: {
    retry: "stop",
    meaning: "what is to be resumed is not paused, or was resumed and paused anew meanwhile",
    why: "Somebody else resumed it before you did.",
    remedy: "nothing, or ask who paused anew",
    ifNothing: NOTHING_DONE,
  },
  TOPIC_NOT_HELD: {
    retry: "stop",
    meaning: "`tributary capture release` names a topic that is not held",
    why: "It was released before, or the name is that of another topic.",
    remedy: "name one that `tributary capture status` lists",
    ifNothing: NOTHING_DONE,
  },
});

/** Capture: the stream. */
export const STREAM_ERRORS: ErrorSection = errorSection("Capture: the stream", CAPTURE_STANDS, {
  STREAM_NOT_FOUND: {
    retry: "stop",
    meaning: "no such Kinesis stream",
    why: "It was deleted, has another name, or is in another region or account.",
    remedy: "deploy the stack; see that name, region and account are right",
  },
  STREAM_ACCESS: {
    retry: "stop",
    meaning: "the role may not write, or not read the stream's end after an unclean stop",
    why: "The task's role lacks an action on the stream, or on the KMS key that encrypts it.",
    remedy:
      "permit the role `kinesis:PutRecords`, `kinesis:DescribeStreamSummary`, `kinesis:ListShards`, `kinesis:GetShardIterator`, `kinesis:GetRecords`, and the KMS key",
  },
  STREAM_TAIL: {
    retry: "restart",
    meaning: "the stream's end cannot be read after an unclean stop",
    why: "After an unclean stop the end of the stream is read, to know what arrived. Kinesis did not let it.",
    remedy: "nothing when it passes; else look at the way to Kinesis (endpoint, NAT, network)",
  },
  STREAM_READ: {
    retry: "restart",
    meaning: "the stream cannot be read, where the start of a new consumer (`startAt`) is looked for",
    why: "A new consumer has `startAt`, and Kinesis did not let capture read what is in the stream.",
    remedy:
      "nothing when it passes; else look at the way to Kinesis, or take `startAt` out: the consumer begins now",
  },
  STREAM_REQUEST: {
    retry: "stop",
    meaning: "Kinesis calls a request invalid",
    why: "A record is larger than the stream allows, or a setting is not what Kinesis knows.",
    remedy: "set `stream.maxRecordBytes` to the stream's own limit",
  },
  CLIENT_RETRIES: {
    retry: "stop",
    meaning: "the Kinesis client retries by itself",
    why: "A client that retries by itself could write records out of order.",
    remedy: "make the Kinesis client with `maxAttempts: 1`",
  },
  OVERSIZE_CHANGE: {
    retry: "stop",
    meaning: "a change is larger than a record may be",
    why: "A Kinesis record holds 1 MiB, or what the stream allows, and there is no claim store for what is larger.",
    remedy: 'name a bucket (`TRIBUTARY_CLAIM_BUCKET`), or set `stream.oversize: "omit"`',
  },
  CLAIM_TOO_LARGE: {
    retry: "stop",
    meaning: "a change is larger than consumers could read",
    why: "A function's memory bounds what a consumer can read of one change.",
    remedy: '`stream.oversize: "omit"`, or leave the column out with `source.excludeColumns`',
  },
  PARTITION_KEY_TOO_LONG: {
    retry: "stop",
    meaning: "a topic's name is too long",
    why: "Kinesis allows 256 characters for a partition key, which the topic's name is part of.",
    remedy: "choose a shorter name in `topics`",
  },
  CLAIM_STORE_UNAVAILABLE: {
    retry: "retry",
    meaning: "S3 does not answer",
    why: "Throttling, or no way to S3.",
    remedy: "nothing when it passes; else look at the way to S3 (endpoint, network)",
  },
  CLAIM_STORE_REFUSED: {
    retry: "stop",
    meaning: "S3 refuses",
    why: "The bucket does not exist, or the role or the KMS key's policy does not allow it. Without `s3:ListBucket` a missing object looks like a forbidden one.",
    remedy: "see that the bucket's name is right, and what its policy, the role and the KMS key permit",
  },
});
