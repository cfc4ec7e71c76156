import {
  defineError,
  type ErrorFacts,
  type RetryDirective,
  TributaryError,
} from "../../change/tributary-error.ts";

/** The server cannot be reached: wrong host or port, a firewall, not running. */
export class PostgresUnreachableError extends defineError("POSTGRES_UNREACHABLE", "retry") {}

/** The server is starting, stopping, or out of connections. */
export class PostgresNotReadyError extends defineError("POSTGRES_NOT_READY", "retry") {}

/** User or password is wrong, or pg_hba.conf does not let them in. Passes by itself where a provider makes passwords. */
export class PostgresAuthenticationError extends TributaryError {
  readonly code = "POSTGRES_AUTHENTICATION";
  readonly retry: RetryDirective;

  constructor(facts: ErrorFacts, retry: RetryDirective) {
    super(facts);
    this.retry = retry;
  }
}

/** The server has no database of that name. */
export class PostgresDatabaseMissingError extends defineError("POSTGRES_DATABASE_MISSING", "stop") {}

/** TLS is not offered, or the certificate is not the server's. */
export class PostgresTlsError extends defineError("POSTGRES_TLS", "stop") {}

/** A pooler answers (PgBouncer, RDS Proxy): logical replication needs the server itself. */
export class PostgresPoolerError extends defineError("POSTGRES_POOLER", "stop") {}

/** The role may not do what it must. */
export class PostgresPermissionError extends defineError("POSTGRES_PERMISSION", "stop") {}

/** The server refuses a statement, for a reason that nothing here knows more about. */
export class PostgresStatementError extends defineError("POSTGRES_STATEMENT", "restart") {}

/** One thing that preflight found. */
export interface PreflightProblem {
  /** Stable name of the kind: `REPLICA_IDENTITY`. */
  readonly code: string;
  /** The fault, with the names concerned. */
  readonly message: string;
  /** The next step, with the SQL to run. */
  readonly remedy: string;
}

/** The server or its tables are not fit for capture. Nothing was touched; every problem is listed. */
export class PreflightError extends defineError("PREFLIGHT", "stop").from(
  (problems: readonly PreflightProblem[]) => ({
    message: `PostgreSQL is not ready for capture:\n${problems.map((p) => `  ${p.code}: ${p.message}`).join("\n")}`,
    remedy:
      problems.length === 1
        ? (problems[0]?.remedy ?? "")
        : problems.map((p) => `${p.code}: ${p.remedy}`).join("\n"),
    problems,
  }),
) {}

/** The definition names another slot, publication or database than the one the pipeline started with (rule 2). */
export class SlotSettingsChangedError extends defineError("SLOT_SETTINGS_CHANGED", "stop") {}

/** The publication was dropped, and perhaps made anew: the server passes over changes while there is none. */
export class PublicationReplacedError extends defineError("PUBLICATION_REPLACED", "stop") {}

/** The publication was changed and leaves out changes of captured tables. */
export class PublicationNarrowedError extends defineError("PUBLICATION_NARROWED", "restart") {}

/** The slot's confirmed LSN is beyond ours: someone else consumed changes that we never saw. */
export class SlotAheadError extends defineError("SLOT_AHEAD", "stop") {}

/** The server's WAL ends before what we confirmed: it was restored from an older copy. */
export class ServerBehindError extends defineError("SERVER_BEHIND", "stop") {}

/** The server is another one than the pipeline started with. */
export class OtherSystemError extends defineError("OTHER_SYSTEM", "stop") {}

/** The server's timeline left ours before what we confirmed: history forked at a failover or restore. */
export class TimelineForkedError extends defineError("TIMELINE_FORKED", "stop") {}

/** A commit comes again that is not the one we confirmed at that place: history forked. */
export class HistoryForkedError extends defineError("HISTORY_FORKED", "stop") {}

/** The slot that we read from does not exist any more. */
export class SlotMissingError extends defineError("SLOT_MISSING", "stop") {}

/** The server invalidated the slot: the WAL it needs is gone. */
export class SlotLostError extends defineError("SLOT_LOST", "stop") {}

/** A slot of our name exists, but not one we may read from. */
export class SlotForeignError extends defineError("SLOT_FOREIGN", "stop") {}

/** Another connection reads from the slot. */
export class SlotInUseError extends defineError("SLOT_IN_USE", "restart") {}

/** The replication link ended or fell silent; the stream connects anew. */
export class ReplicationLinkError extends defineError("REPLICATION_LINK", "retry") {}

/** The server refused to go on with the stream, and would refuse again. */
export class ReplicationStreamError extends defineError("REPLICATION_STREAM", "stop") {}
