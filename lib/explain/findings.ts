import { type Entry, pageOf, type Section } from "./entry.ts";

interface FindingText {
  readonly meaning: string;
  readonly why: string;
  readonly remedy: string;
  readonly ifNothing?: string;
}

const NOT_STARTED =
  "Capture does not start, and nothing is made or changed. A pipeline that ran before keeps its slot, for which PostgreSQL keeps WAL.";
const GOES_ON = "Capture goes on; this is only said at each start.";

/** What preflight finds of the server and its tables. Where it stops a start it is a problem, else a warning. */
export const PREFLIGHT_FINDINGS: Section = findings("Preflight problems", NOT_STARTED, {
  SERVER_VERSION: {
    meaning:
      "the server is older than PostgreSQL 14, or too old for a setting; or newer than was tested (a warning)",
    why: "Logical messages need 14, `source.where` and `source.excludeColumns` need 15.",
    remedy: "upgrade the server, or remove the setting that the message names",
  },
  STANDBY: {
    meaning: "the server is a standby",
    why: "Publications, positions and deletes from the audit table are made on the primary.",
    remedy: "connect to the primary; on Aurora to the cluster's writer endpoint",
  },
  WAL_LEVEL: {
    meaning: "wal_level is not logical",
    why: "The server's default is replica: such a log does not say which row a change is of.",
    remedy:
      "`ALTER SYSTEM SET wal_level = 'logical';` and restart the server; on RDS and Aurora `rds.logical_replication = 1` in the parameter group, and a reboot",
  },
  REPLICATION_SLOTS: {
    meaning: "all replication slots are taken",
    why: "max_replication_slots bounds them, and slots that nobody reads count too.",
    remedy:
      "drop one that nobody needs (`SELECT slot_name, active FROM pg_replication_slots;`), or raise max_replication_slots and restart the server",
  },
  WAL_SENDERS: {
    meaning: "all WAL senders are busy",
    why: "Each standby and each reader of a slot needs one.",
    remedy: "raise max_wal_senders and restart the server",
  },
  UNBOUNDED_WAL: {
    meaning: "max_slot_wal_keep_size is -1: a slot may hold WAL back until the disk is full",
    why: "That is the server's default.",
    remedy:
      "`ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();` with less than the free disk space, or `source.acceptUnboundedWal: true`",
  },
  ROLE_REPLICATION: {
    meaning: "the role has not the REPLICATION attribute",
    why: "Reading a slot needs it.",
    remedy: "`ALTER ROLE <role> WITH REPLICATION;`; on RDS and Aurora `GRANT rds_replication TO <role>;`",
  },
  SELECT: {
    meaning: "the role may not use a schema or read a table",
    why: "Existing rows are read with SELECT, and a publication of captured tables is checked with it.",
    remedy: "run the GRANT that it prints",
  },
  PUBLICATION: {
    meaning: "the publication is not what capture needs, and the role may not make or change it",
    why: "It does not exist, was dropped, leaves operations or tables out, or publishes partitions one by one.",
    remedy: "run the SQL that it prints, as owner of the tables",
  },
  ROW_FILTER: {
    meaning: "`source.where` looks at columns that are not in the table's replica identity",
    why: "PostgreSQL then refuses the application's own UPDATE and DELETE.",
    remedy: "`ALTER TABLE … REPLICA IDENTITY FULL;`, or filter by columns of the identity",
  },
  REPLICA_IDENTITY: {
    meaning: "a table has no usable replica identity",
    why: "Published without one, the application's own UPDATE and DELETE on it would fail.",
    remedy: "run the ALTER TABLE that it prints, or leave the table out with `source.exclude`",
  },
  PARTITION_IDENTITY: {
    meaning: "partitions have another replica identity than their table, or later ones will have none",
    why: "PostgreSQL passes an identity on to partitions only where it is the primary key.",
    remedy: "run the ALTER TABLE that it prints, on each partition",
  },
  KEY_GENERATED: {
    meaning: "a table's key has a generated column",
    why: "Before PostgreSQL 18 its values are not sent.",
    remedy: "another unique index as identity, PostgreSQL 18, or `source.exclude`",
  },
  KEY_COLUMN: {
    meaning:
      "`topics.keys` names a column or table that is not there, may be null, or is not in the replica identity",
    why: "Every change must carry the key that chooses its partition.",
    remedy: "the SQL that it prints, or correct `topics.keys`",
  },
  NO_KEY: {
    meaning: "a table has no primary key (a warning)",
    why: "Without a key all its changes go to one partition.",
    remedy: "`ALTER TABLE … ADD PRIMARY KEY (…);`, or `topics.keys` before the first start",
    ifNothing: GOES_ON,
  },
  GENERATED_COLUMNS: {
    meaning: "generated columns do not travel (a warning)",
    why: "Before PostgreSQL 18 the log does not have them.",
    remedy: "compute them in the consumer",
    ifNothing: GOES_ON,
  },
  ROW_SECURITY: {
    meaning: "a table has row-level security (a warning)",
    why: "Policies do not apply to the log: all rows are captured.",
    remedy: "`source.where` for rows that must stay; `ALTER ROLE <role> BYPASSRLS;` to read existing rows",
    ifNothing: "Changes of all rows are captured; a backfill of the table is refused without BYPASSRLS.",
  },
  EXCLUDED_COLUMN: {
    meaning: "`source.excludeColumns` names a column that is not there, or that the replica identity needs",
    why: "A slip would publish what should stay in the database; without its identity the application's UPDATE and DELETE would fail.",
    remedy: "correct the name, or keep the column",
  },
  TABLE_KIND: {
    meaning: "what a pattern names is no ordinary table: a view, a foreign, temporary or unlogged table",
    why: "Its changes are not in the log.",
    remedy: "name the tables behind it, `ALTER TABLE … SET LOGGED;`, or `source.exclude`",
  },
  TABLE_PATTERN: {
    meaning: "a pattern of the definition matches no table, or nothing is left to capture",
    why: "A misspelled name, or another database than was meant.",
    remedy: "correct the pattern; the message has names that are near",
  },
  LARGE_VALUES: {
    meaning:
      "when a row's key changes, large values that stayed as they were do not travel with the change (a warning)",
    why: "The log does not repeat a TOASTed value that was not changed.",
    remedy: "nothing: the row is read again; `REPLICA IDENTITY FULL` sends such values at once",
    ifNothing: GOES_ON,
  },
  NAME_ENCODING: {
    meaning: "the name of a table or column is not valid UTF-8",
    why: "SQL_ASCII databases store names unchecked.",
    remedy: "the SQL that it prints renames it; or `source.exclude`",
  },
  SQL_ASCII: {
    meaning: "the database's encoding is SQL_ASCII",
    why: "The server does not know what its text means.",
    remedy: '`source.sqlAsciiEncoding: "utf-8"` or `"latin1"`, or convert the database',
  },
  ENCODING: {
    meaning: "the database's encoding cannot be read, or not by a publication of that name",
    why: "Some encodings nobody but the server converts.",
    remedy: "move the database to UTF-8, or choose an ASCII name with `source.publication`",
  },
  OUTBOX_TABLE: {
    meaning: "the outbox table is not there, or not as events need it",
    why: "It was made by hand, or for another number of partitions.",
    remedy: "`tributary outbox plan` prints what is missing, `tributary outbox install` makes it",
  },
  AUDIT_SCHEMA: {
    meaning: "(triggers) a schema of the audit table's name exists, and Tributary did not make it",
    why: "The name is taken by something else.",
    remedy: "another name in `source.schema`",
  },
  AUDIT_TABLE: {
    meaning: "(triggers) there is no audit table that the role may read and delete from",
    why: "Triggers were not installed, or for another reader.",
    remedy: "as owner of the tables: `tributary triggers install --reader <role>`",
  },
  TRIGGERS: {
    meaning: "(triggers) captured tables have no triggers, or some that do not always fire",
    why: "Tables were added to the definition after the install, or a trigger was dropped or disabled.",
    remedy: "as owner of the tables: `tributary triggers install`; or `source.exclude`",
  },
  TRIGGERS_VERSION: {
    meaning: "(triggers) the trigger function is of another version (a warning)",
    why: "tributary-cdc was upgraded since the install.",
    remedy: "as owner of the tables: `tributary triggers install`",
    ifNothing: GOES_ON,
  },
  POLLING_COLUMN: {
    meaning: "(polling) a table has no column to be asked for what is newer, or one of a wrong type",
    why: "Polling finds changed rows by a time that grows.",
    remedy: "`source.columns`, `source.exclude`, or the ALTER TABLE that it prints",
  },
  POLLING_KEY: {
    meaning: "(polling) a table has no primary key",
    why: "Rows of equal times could not be told apart.",
    remedy: "`ALTER TABLE … ADD PRIMARY KEY (…);` or `source.exclude`",
  },
  POLLING_INDEX: {
    meaning: "(polling) no index begins with the column that is polled by (a warning)",
    why: "Each look reads the whole table.",
    remedy: "run the CREATE INDEX CONCURRENTLY that it prints",
    ifNothing: "Capture goes on, and each poll reads the whole table.",
  },
  POLLING_DELETES: {
    meaning:
      "(polling) deletes cannot be found: too many keys, or a partition that is chosen by other columns",
    why: "The keys of all rows are compared in memory.",
    remedy: "leave the table out of `source.deletes.tables`",
  },
  TIME_ZONE: {
    meaning: "(polling) the server knows no such time zone",
    why: "`source.timeZone` is misspelled, or the server lacks it.",
    remedy: "one of `SELECT name FROM pg_timezone_names;`",
  },
  TRANSACTIONS: {
    meaning: "(polling) the role may not see when others' transactions began",
    why: "A row may be committed long after its time: polling waits for older transactions.",
    remedy: "`GRANT pg_read_all_stats TO <role>;`, or `source.longestTransactionSeconds`",
  },
});

/** What the capture log warns of while it goes on. */
export const CAPTURE_WARNINGS: Section = findings("Warnings of a running capture task", GOES_ON, {
  UNHEALED: {
    meaning: "changes of a table may be missing in the stream",
    why: "The publication left some out for a while, or the table was replaced.",
    remedy:
      "`tributary backfill start --table <table>` reads its rows again, with a sweep; `tributary capture release --table <table>` accepts it",
    ifNothing:
      "Sinks may lack changes of the table, or have rows that it has no more. It stays listed in `tributary capture status`, and its alarm rings.",
  },
  PARTITION_REMOVED: {
    meaning: "a partition was detached, dropped or truncated alone",
    why: "The log does not tell of its rows.",
    remedy:
      'if the rows are to go from the sinks too: `tributary backfill start --table <table>`; each time: `source.partitions: { removed: "sweep" }`',
    ifNothing: "Its rows stay in the sinks.",
  },
  TABLE_KEY: {
    meaning: "(triggers, polling, outbox) a table's key is another one from here on",
    why: "ALTER TABLE changed its primary key; rows may go to other partitions.",
    remedy:
      "when consumers have passed the change, compare: `tributary verify --table <table> --consumer <consumer>`",
    ifNothing: "A consumer may have seen changes of a row in another order around that place.",
  },
  TRIGGERS_PARTITION: {
    meaning: "(triggers) a new partition has no trigger for its truncate",
    why: "PostgreSQL gives row triggers to new partitions, and none for TRUNCATE.",
    remedy: "as owner of the tables: `tributary triggers install`",
    ifNothing: "A TRUNCATE of the partition alone is not seen.",
  },
  UNEXPECTED: {
    meaning: "the capture task ended with an error that is none of Tributary's own",
    why: "A fault of the library or of a package that it uses. Only its class is stored: its message may hold values of rows.",
    remedy: "look at the task's log, which has the stack; should it repeat, report it",
    ifNothing: "The task's host starts it again. While that repeats PostgreSQL keeps WAL for the slot.",
  },
  TRIGGERS_TRUNCATED: {
    meaning: "(triggers) a partition was truncated, and not all its rows could be read before",
    why: "The trigger reads rows up to a bound.",
    remedy:
      "compare, and remove from the sinks what the table has not: `tributary verify --table <table> --consumer <consumer>`",
    ifNothing: "Sinks may keep rows that the table has no more.",
  },
});

function findings(title: string, usual: string, texts: Readonly<Record<string, FindingText>>): Section {
  const page = pageOf("08-errors.md", title);
  const entries = Object.entries(texts).map(
    ([code, { ifNothing = usual, ...text }]): Entry => ({ ...text, code, kind: "finding", ifNothing, page }),
  );
  return { title, entries };
}
