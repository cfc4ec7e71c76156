import { type ErrorFacts, type RetryDirective, TributaryError } from "../../change/tributary-error.ts";

/** The server cannot be reached: wrong host or port, a firewall, not running. */
export class PostgresUnreachableError extends TributaryError {
  readonly code = "POSTGRES_UNREACHABLE";
  readonly retry = "retry";
}

/** The server is starting, stopping, or out of connections. */
export class PostgresNotReadyError extends TributaryError {
  readonly code = "POSTGRES_NOT_READY";
  readonly retry = "retry";
}

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
export class PostgresDatabaseMissingError extends TributaryError {
  readonly code = "POSTGRES_DATABASE_MISSING";
  readonly retry = "stop";
}

/** TLS is not offered, or the certificate is not the server's. */
export class PostgresTlsError extends TributaryError {
  readonly code = "POSTGRES_TLS";
  readonly retry = "stop";
}

/** What answers is a pooler (PgBouncer, RDS Proxy): logical replication needs the server itself. */
export class PostgresPoolerError extends TributaryError {
  readonly code = "POSTGRES_POOLER";
  readonly retry = "stop";
}

/** The role may not do what it must. */
export class PostgresPermissionError extends TributaryError {
  readonly code = "POSTGRES_PERMISSION";
  readonly retry = "stop";
}

/** The server refuses a statement, for a reason that nothing here knows more about. */
export class PostgresStatementError extends TributaryError {
  readonly code = "POSTGRES_STATEMENT";
  readonly retry = "restart";
}

/** One thing that preflight found. */
export interface PreflightProblem {
  /** Stable name of the kind: `REPLICA_IDENTITY`. */
  readonly code: string;
  /** What is wrong, with the names concerned. */
  readonly message: string;
  /** What to do, with the SQL to run. */
  readonly remedy: string;
}

/** The server or its tables are not fit for capture. Nothing was touched; every problem is listed. */
export class PreflightError extends TributaryError {
  readonly code = "PREFLIGHT";
  readonly retry = "stop";
  readonly problems: readonly PreflightProblem[];

  constructor(problems: readonly PreflightProblem[]) {
    super({
      message: `PostgreSQL is not ready for capture:\n${problems.map((p) => `  ${p.code}: ${p.message}`).join("\n")}`,
      remedy: problems.map((p) => p.remedy).join("\n"),
    });
    this.problems = problems;
  }
}

/** The definition names another slot, publication or database than the one the pipeline started with (rule 2). */
export class SlotSettingsChangedError extends TributaryError {
  readonly code = "SLOT_SETTINGS_CHANGED";
  readonly retry = "stop";
}

/** The publication was dropped, and perhaps made anew: the server passes over changes while there is none. */
export class PublicationReplacedError extends TributaryError {
  readonly code = "PUBLICATION_REPLACED";
  readonly retry = "stop";
}

/** The publication was changed and leaves out changes of captured tables. */
export class PublicationNarrowedError extends TributaryError {
  readonly code = "PUBLICATION_NARROWED";
  readonly retry = "restart";
}

/** The slot's confirmed LSN is beyond ours: someone else consumed changes that we never saw. */
export class SlotAheadError extends TributaryError {
  readonly code = "SLOT_AHEAD";
  readonly retry = "stop";
}

/** The server's WAL ends before what we confirmed: it was restored from an older copy. */
export class ServerBehindError extends TributaryError {
  readonly code = "SERVER_BEHIND";
  readonly retry = "stop";
}

/** The server is another one than the pipeline started with. */
export class OtherSystemError extends TributaryError {
  readonly code = "OTHER_SYSTEM";
  readonly retry = "stop";
}

/** The server's timeline left ours before what we confirmed: history forked at a failover or restore. */
export class TimelineForkedError extends TributaryError {
  readonly code = "TIMELINE_FORKED";
  readonly retry = "stop";
}

/** A commit comes again that is not the one we confirmed at that place: history forked. */
export class HistoryForkedError extends TributaryError {
  readonly code = "HISTORY_FORKED";
  readonly retry = "stop";
}

/** The slot that we read from does not exist any more. */
export class SlotMissingError extends TributaryError {
  readonly code = "SLOT_MISSING";
  readonly retry = "stop";
}

/** The server invalidated the slot: the WAL it needs is gone. */
export class SlotLostError extends TributaryError {
  readonly code = "SLOT_LOST";
  readonly retry = "stop";
}

/** A slot of our name exists, but not one we may read from. */
export class SlotForeignError extends TributaryError {
  readonly code = "SLOT_FOREIGN";
  readonly retry = "stop";
}

/** Another connection reads from the slot. */
export class SlotInUseError extends TributaryError {
  readonly code = "SLOT_IN_USE";
  readonly retry = "restart";
}

/** The replication link ended or fell silent; the stream connects anew. */
export class ReplicationLinkError extends TributaryError {
  readonly code = "REPLICATION_LINK";
  readonly retry = "retry";
}

/** The server refused to go on with the stream, and would refuse again. */
export class ReplicationStreamError extends TributaryError {
  readonly code = "REPLICATION_STREAM";
  readonly retry = "stop";
}
