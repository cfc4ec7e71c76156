import { CAPTURE_STANDS, type ErrorSection, errorSection, NOTHING_DONE } from "./entry.ts";

/** Capture: the server and the role. */
export const SERVER_ERRORS: ErrorSection = errorSection("Capture: the server and the role", CAPTURE_STANDS, {
  CONFIGURATION: {
    retry: "stop",
    meaning: "the definition, the environment or a command line is wrong",
    why: "A field is missing, misspelled, or of another kind than it must be. It was found before anything was touched.",
    remedy: "write what the message says for each field it names, and start again",
    ifNothing:
      "The process or command does not run. A capture task that ran before leaves its slot behind, for which PostgreSQL keeps WAL.",
  },
  PREFLIGHT: {
    retry: "stop",
    meaning: "server, role or tables are not fit for capture; nothing was touched",
    why: "Capture asks the server for what it needs (wal_level, role, replica identities, publication) before it makes anything, and something is not there.",
    remedy:
      "run the SQL that is printed with each problem, and start again; `tributary explain <problem>` says more of one",
  },
  POSTGRES_UNREACHABLE: {
    retry: "retry",
    meaning: "nobody answers",
    why: "A wrong host or port, a security group or firewall between, or a server that does not run.",
    remedy:
      "see that host and port are right, and that the firewall or security group lets this machine in; at a start it ends the task",
  },
  POSTGRES_NOT_READY: {
    retry: "retry",
    meaning:
      "the server starts, stops, or has no connection left: the remedy says whether the limit is the role's, the database's, that of replication sessions or the server's",
    why: "The server starts, stops or recovers, or others have taken all connections that are allowed.",
    remedy: "nothing, or raise the limit that it names",
  },
  POSTGRES_AUTHENTICATION: {
    retry: "retry or stop",
    meaning: "user or password is refused (`retry` where a provider makes passwords)",
    why: "The password was changed, the role does not exist, or no line of pg_hba.conf lets it in from here.",
    remedy: "correct user and password, or the line of `pg_hba.conf`",
  },
  POSTGRES_DATABASE_MISSING: {
    retry: "stop",
    meaning: "no database of that name",
    why: "The name in the URL or PGDATABASE is misspelled, or the database was dropped or renamed.",
    remedy: "correct the database's name in `DATABASE_URL` or `PGDATABASE`",
  },
  POSTGRES_TLS: {
    retry: "stop",
    meaning: "TLS is not offered, or the certificate is not the server's",
    why: "The server has no certificate, or one that is not signed by a CA known here or is of another host name.",
    remedy:
      "set `TRIBUTARY_TLS` to what the server offers, and `TRIBUTARY_TLS_CA_FILE` to the CA that signed its certificate",
  },
  POSTGRES_POOLER: {
    retry: "stop",
    meaning: "PgBouncer or RDS Proxy answers",
    why: "Logical replication needs one session with the server itself; a pooler shares sessions and does not pass the replication protocol on.",
    remedy: "connect to the server itself: its own host and port, not those of the pooler",
  },
  POSTGRES_PERMISSION: {
    retry: "stop",
    meaning: "the role may not",
    why: "The role lacks a privilege on a table, schema or function, or the REPLICATION attribute.",
    remedy: "run the GRANT that it prints",
  },
  POSTGRES_STATEMENT: {
    retry: "restart",
    meaning: "the server refuses a statement; the message has its words and its code",
    why: "The server answered with an error that Tributary has no advice of its own for: a read-only server, a limit, a broken extension.",
    remedy: "look at the server's log; at `25006` connect to the server that takes writes",
  },
  SECRET_UNAVAILABLE: {
    retry: "retry or stop",
    meaning: "the database's secret cannot be read (`stop` where it is refused)",
    why: "Secrets Manager does not answer, the secret does not exist, or the role may not read or decrypt it.",
    remedy:
      "see that the secret's ARN is right, that the role may read and decrypt it, and that Secrets Manager is reached from the subnet",
  },
  SECRET_FORMAT: {
    retry: "stop",
    meaning: "the secret is not the JSON that RDS writes",
    why: "The secret's text is not a JSON object with username and password.",
    remedy: 'store it as RDS does: `{"username":"…","password":"…"}`',
  },
  SECRET_CHANGED: {
    retry: "restart",
    meaning: "rotation changed the user or the server",
    why: "A rotation wrote a secret for another user or host; connections are made with one secret from a start to its end.",
    remedy: "nothing: the next start reads the new secret",
    ifNothing: "The task starts again with the new secret.",
  },
  IAM_TOKEN_UNAVAILABLE: {
    retry: "retry",
    meaning: "no IAM token could be signed",
    why: "The task has no credentials of a role, or no region to sign for.",
    remedy: "see that the task has its role, and that `AWS_REGION` is set",
  },
});

/** Capture: the slot and history. */
export const SLOT_ERRORS: ErrorSection = errorSection("Capture: the slot and history", CAPTURE_STANDS, {
  SLOT_MISSING: {
    retry: "stop",
    meaning: "the slot is gone",
    why: "Somebody dropped the slot, or a failover led to a server that never had it.",
    remedy: "`tributary epoch new` shows what would be done; with `--confirm <pipeline>` it does it",
    ifNothing:
      "Capture stays down, and what is committed meanwhile is in no slot: it will be missing in the stream until consumers are re-synced after the new epoch.",
  },
  SLOT_LOST: {
    retry: "stop",
    meaning: "the server gave it up: its WAL is gone",
    why: "Capture stood still, or lagged, until the WAL held for it exceeded max_slot_wal_keep_size; the server then removed it.",
    remedy:
      "raise `max_slot_wal_keep_size` (`ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();`), then `tributary epoch new --drop-slot`",
    ifNothing:
      "Capture stays down, and what is committed meanwhile is in no slot: it will be missing in the stream until consumers are re-synced after the new epoch.",
  },
  SLOT_AHEAD: {
    retry: "stop",
    meaning: "someone else consumed it, or made it anew",
    why: "Another reader of the slot confirmed changes, somebody advanced it, or it was dropped and made again.",
    remedy:
      "find who reads it (`SELECT slot_name, active_pid FROM pg_replication_slots;`) and end that, then `tributary epoch new --drop-slot`",
    ifNothing:
      "Capture stays down. The changes that the other reader took are gone from the slot whatever is done; those behind are kept.",
  },
  SLOT_FOREIGN: {
    retry: "stop",
    meaning:
      "a slot of our name is not one of ours; [`tail`](09-local.md#tributary-tail) was to read or drop one that is not its own",
    why: "A slot of that name was made by another product, with another plugin, or for another pipeline.",
    remedy:
      "name another `source.slot`; for `tributary tail` another `--slot`, or run the SQL in the message",
    ifNothing: "Nothing is read and nothing is dropped: the slot stays with whoever owns it.",
  },
  SLOT_IN_USE: {
    retry: "restart",
    meaning: "another process reads from it",
    why: "An old task's session has not ended yet, or a second task, stack or person reads the same slot.",
    remedy: "stop the process that the message names; `SELECT pg_terminate_backend(<pid>);` ends its session",
  },
  SLOT_SETTINGS_CHANGED: {
    retry: "stop",
    meaning: "slot, publication or database are named otherwise than at the first start",
    why: "source.slot, source.publication or the database's name was edited after the first start; a slot keeps its publication by name.",
    remedy: "put the names back in the definition, or `tributary epoch new`",
  },
  PUBLICATION_NARROWED: {
    retry: "restart",
    meaning:
      "the publication was changed and leaves out changes of captured tables; they are noted as unhealed",
    why: "ALTER PUBLICATION took a table, an operation or columns out, or added a filter, while capture ran.",
    remedy:
      "run the ALTER PUBLICATION that it names; then what `tributary capture status` says of each table",
    ifNothing:
      "Changes that the publication leaves out go on missing. The tables are noted as unhealed until they are read again or accepted.",
  },
  PUBLICATION_REPLACED: {
    retry: "stop",
    meaning: "the publication was dropped, and perhaps made anew: changes may be missing",
    why: "DROP PUBLICATION, or a migration tool that drops and creates it. While there is none the server passes over changes.",
    remedy: "`tributary epoch new --drop-slot`; the next time change the publication with ALTER PUBLICATION",
  },
  SERVER_BEHIND: {
    retry: "stop",
    meaning:
      "the server's log, or its transaction ids, end before what we confirmed or what the stream has: an older copy",
    why: "The server was restored from a snapshot or backup, or a replica was promoted that had not received everything.",
    remedy: "connect to the right server, or `tributary epoch new --drop-slot`",
  },
  OTHER_SYSTEM: {
    retry: "stop",
    meaning: "another cluster",
    why: "The connection leads to another cluster: a changed DNS name, a new instance, a wrong environment variable.",
    remedy: "connect to the right server, or `tributary epoch new --drop-slot`",
  },
  TIMELINE_FORKED: {
    retry: "stop",
    meaning: "promoted before what we confirmed or what the stream has: commits were lost",
    why: "A standby was promoted before it had received what was already in the stream: those commits exist in the stream alone.",
    remedy: "`tributary epoch new --drop-slot`",
  },
  HISTORY_FORKED: {
    retry: "stop",
    meaning:
      "a replayed commit is another one, or one that the stream has is not there: a restored copy that was written on",
    why: "The data comes from a copy that was written to independently.",
    remedy: "`tributary epoch new --drop-slot`",
  },
  REPLICATION_LINK: {
    retry: "retry",
    meaning: "the link ended or fell silent",
    why: "A restart of the server, an interrupted network, or a walsender that was ended.",
    remedy: "nothing; when it repeats, look at the network and at the server's log",
  },
  REPLICATION_STREAM: {
    retry: "stop",
    meaning: "the server cannot decode on",
    why: "The server could not decode: a publication that was dropped, a plugin error, a damaged WAL file.",
    remedy: "look at the server's log; a dropped publication needs `tributary epoch new --drop-slot`",
  },
});

/** Capture: more than one slot. */
export const SLOTS_ERRORS: ErrorSection = errorSection("Capture: more than one slot", CAPTURE_STANDS, {
  TABLES_MOVED: {
    retry: "restart",
    meaning: "tables went to another slot meanwhile",
    why: "source.slots changed, and another slot's task took over the tables.",
    remedy: "nothing: the task starts anew without them",
    ifNothing: "The task starts again without them, and goes on.",
  },
  FIRST_SLOT_MISSING: {
    retry: "restart",
    meaning: "the first slot's task does not run with this definition yet, or has made no slot",
    why: "Tasks of further slots wait for the first slot's task, which makes what they share.",
    remedy: "look at the log of the first slot's task, and correct what it says",
  },
  TABLE_MOVE_DELAYED: {
    retry: "restart",
    meaning: "tables are in use all the time, or their old slot is not as far",
    why: "A move takes a short lock of each table, and waits until the old slot has read up to the place of the move.",
    remedy:
      "end long transactions on the tables; see that the old slot's capture task runs and is up to date",
  },
  TABLE_MOVE_REFUSED: {
    retry: "stop",
    meaning: "the role does not own a table, or a publication is not ours",
    why: "ALTER PUBLICATION needs the owner of the table and of the publication.",
    remedy: "make the role the owner of the tables, or put `source.slots` back",
  },
  SLOTS_REDUCED: {
    retry: "stop",
    meaning: "`source.slots` is less than it was",
    why: "Tables cannot go back from a slot to another while one of them is no longer read.",
    remedy: "put `source.slots` back; or stop every capture task, and `tributary epoch new --drop-slot`",
  },
  SLOT_EPOCH: {
    retry: "stop",
    meaning: "`tributary epoch new` did not come to its end: a slot belongs to the epoch before",
    why: "The command was interrupted between two slots.",
    remedy: "with every capture task stopped, once more `tributary epoch new --drop-slot`",
  },
  TABLE_RENAMED: {
    retry: "restart",
    meaning: "a table was renamed: its changes would go to a topic that was not this slot's",
    why: "ALTER TABLE … RENAME, or a swap of tables, while several slots share the tables by name.",
    remedy:
      "nothing: the task starts anew; where it comes each time, rename the table back, or `tributary epoch new --drop-slot`",
  },
  TOPIC_TAKEN: {
    retry: "stop",
    meaning: "a renamed table has a name whose topic another slot writes",
    why: "The new name belongs, by source.slots, to another slot's share.",
    remedy: "rename the table back, or `tributary epoch new --drop-slot`",
  },
  TOPIC_SPLIT: {
    retry: "stop",
    meaning: "tables of one topic are published by two slots' publications: changed by hand",
    why: "Somebody altered the slots' publications by hand; two writers of one topic would lose its order.",
    remedy: "stop all tasks, drop these publications, then `tributary epoch new --drop-slot`",
  },
});

/** Capture: one writer and its state. */
export const STATE_ERRORS: ErrorSection = errorSection("Capture: one writer and its state", CAPTURE_STANDS, {
  CAPTURE_LEASE_LOST: {
    retry: "restart",
    meaning: "another capture task took over",
    why: "A deploy started the next task, or this one could not renew its lease in time (a pause, no answer from DynamoDB).",
    remedy: "nothing in a deployment; else find the second task, and stop it",
    ifNothing: "The other task captures; this one ends.",
  },
  CAPTURE_LEASE_HELD: {
    retry: "restart",
    meaning: "another capture task is alive",
    why: "A second task or stack runs, or somebody's laptop does, with the same state table.",
    remedy: "stop the other task, which the message names; after a deploy it ends by itself",
    ifNothing:
      "This task starts again and waits; the one that has the lease captures. Nothing is written twice.",
  },
  STATE_TABLE: {
    retry: "stop",
    meaning: "the state table does not exist, has other keys, or is forbidden",
    why: "A wrong name or region, a table that was made by hand with other keys, or a role without rights on it.",
    remedy: "deploy the stack; see that the table's name and region are right, and what the role may do",
  },
  STATE_TABLE_UNAVAILABLE: {
    retry: "restart",
    meaning: "DynamoDB did not answer for a minute",
    why: "Throttling, no way to the endpoint, or expired credentials.",
    remedy:
      "nothing when it passes; else look at throttles, endpoint and region, network, credentials. Commands try for a minute too",
  },
  CAPTURE_RECORD_BROKEN: {
    retry: "stop",
    meaning: "items that hold the settings or topics of many tables are gone from the state table",
    why: "Items were deleted from the state table by hand, by a TTL, or by a restore that was not complete.",
    remedy:
      "restore the state table from a backup (point-in-time recovery); where that cannot be, `tributary epoch new --drop-slot`",
  },
  STATE_LOST: {
    retry: "stop",
    meaning: "consumers have checkpoints and capture has no record",
    why: "The capture record was deleted, or the task was given another table than its consumers have.",
    remedy:
      "restore the state table from a backup (point-in-time recovery); where that cannot be, `tributary epoch new --drop-slot`",
  },
  START_EXPIRED: {
    retry: "stop",
    meaning: "a new consumer's `startAt` is older than what the stream keeps",
    why: "`startAt` is earlier than the stream's retention allows, or so near to it that its changes would expire before the consumer has come to them.",
    remedy:
      'a later time or `startAt: "oldest"`; or no `startAt`, and then `tributary backfill start --table <table> --consumer <name>`',
    ifNothing: "Capture does not start, and has written nothing.",
  },
  BACKFILL_ACTIVE: {
    retry: "stop",
    meaning: "a backfill of the table is under way",
    why: "One backfill of a table runs at a time.",
    remedy:
      "wait for its end (`tributary backfill status --watch`), or `tributary backfill cancel --table <table>`",
    ifNothing: NOTHING_DONE,
  },
  RESET_REFUSED: {
    retry: "stop",
    meaning: "a consumer cannot be reset: its rows cannot be read again, or another reset has not ended",
    why: "Only tables of the log can be read again; messages, outbox events and the sources of triggers, polling and relays cannot. Or a reset of other topics of the consumer is under way.",
    remedy:
      "fill the sink of what cannot be read again by hand; let the other reset end first: `tributary consumer reset --consumer <name>` goes on with it",
    ifNothing: NOTHING_DONE,
  },
  RESET_INCOMPLETE: {
    retry: "stop",
    meaning: "a backfill that a reset waits for was refused or cancelled",
    why: "Somebody cancelled it, or the table cannot be read: the reason says why.",
    remedy:
      "look at the reason (`tributary backfill status`) and mend it; then repeat `tributary consumer reset --consumer <name>`: it goes on with the tables that are missing",
    ifNothing:
      "The consumer goes on with new changes; rows of the table stay missing in its sink, and it shows as unhealed.",
  },
  BACKFILL_NOT_ACTIVE: {
    retry: "stop",
    meaning: "there is no backfill of the table to pause, resume or cancel",
    why: "It has ended, was cancelled, or was never started.",
    remedy: "`tributary backfill status` lists them; `tributary backfill start --table <table>` begins one",
    ifNothing: NOTHING_DONE,
  },
  BACKFILL_REFUSED: {
    retry: "stop",
    meaning:
      "a table cannot be backfilled (no key, dropped, no permission, a filter that is none): its backfill ends, the stream goes on",
    why: "Rows are read in pages by the primary key, under the role's own privileges.",
    remedy:
      "do what its reason says (`tributary backfill status`), then `tributary backfill start --table <table>`",
    ifNothing: "The rows are not read. The stream of changes goes on.",
  },
  BACKFILL_STANDBY: {
    retry: "retry",
    meaning:
      "the standby that rows are read from is away, lets nobody in, does not replay, or follows another primary: backfills wait, the stream goes on",
    why: "TRIBUTARY_BACKFILL_DATABASE_URL names a replica, which is down, paused, or follows another server.",
    remedy: "nothing when it comes back; else look at its replay and at `TRIBUTARY_BACKFILL_DATABASE_URL`",
    ifNothing:
      "The backfill waits, and goes on by itself when the standby is back. The stream of changes goes on.",
  },
  BACKFILL_SERVER: {
    retry: "stop",
    meaning:
      "`TRIBUTARY_BACKFILL_DATABASE_URL` names a server that is no copy of the captured one: backfills end so, the stream goes on",
    why: "Rows of another cluster would be mixed with this one's changes.",
    remedy: "set `TRIBUTARY_BACKFILL_DATABASE_URL` to a standby of the captured server, or leave it out",
    ifNothing: "Backfills end so each time. The stream of changes goes on.",
  },
  STORED_SETTING_CHANGED: {
    retry: "stop",
    meaning: "partitions, keys or topics differ from the first start's",
    why: "Partition counts, keys and topics decide where a change goes; changed under a running pipeline, the order of a row's changes would be lost.",
    remedy:
      "put partitions, keys and topics back in the definition (`tributary plan` says whether all are), or begin a pipeline of a new name",
  },
});
