import pg from "pg";
import { quoteIdentifier } from "../../../change/sql-identifier.ts";
import { type RetryDirective, TributaryError } from "../../../change/tributary-error.ts";
import {
  PostgresAuthenticationError,
  PostgresDatabaseMissingError,
  PostgresNotReadyError,
  PostgresPermissionError,
  PostgresPoolerError,
  PostgresStatementError,
  PostgresTlsError,
  PostgresUnreachableError,
  PreflightError,
  type PreflightProblem,
} from "../postgres-errors.ts";
import type { PostgresConnectionOptions } from "./connection-options.ts";

interface Circumstances {
  readonly replication: boolean;
  /** The error that the password provider threw, if it did. */
  readonly providerFailure: unknown;
}

/**
 * The typed error of a failed connection attempt. SQLSTATE codes:
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function explainConnectionError(
  error: unknown,
  options: PostgresConnectionOptions,
  { replication, providerFailure }: Circumstances,
): Error {
  const at = `${options.host}:${options.port}`;
  const { code, message } = error as { code?: string; message: string };
  if (providerFailure instanceof TributaryError) return providerFailure;
  if (providerFailure !== undefined) {
    return new PostgresAuthenticationError(
      {
        message: `the password provider failed for user "${options.user}": ${(providerFailure as Error).name}`,
        remedy: "See the cause: with RDS IAM the task role needs rds-db:connect for this user.",
        cause: providerFailure,
      },
      "retry",
    );
  }
  if (isPooler(message)) {
    return new PostgresPoolerError({
      message: `what answers at ${at} is a connection pooler, not PostgreSQL: ${message}`,
      remedy:
        "Connect to the database instance itself: RDS Proxy and PgBouncer do not carry logical replication. On RDS use the instance or cluster endpoint.",
      cause: error,
    });
  }
  if (error instanceof pg.DatabaseError) return ofServer(error, options, at, replication);
  if (message === "The server does not support SSL connections") {
    return new PostgresTlsError({
      message: `the server at ${at} does not offer TLS, and TLS is "${options.tls.mode}"`,
      remedy: "Set ssl = on at the server, or, on a network you trust, TRIBUTARY_TLS=disable.",
      cause: error,
    });
  }
  if (/^SASL|password must be a string/i.test(message)) {
    return new PostgresAuthenticationError(
      {
        message: `user "${options.user}" could not authenticate at ${at}: ${message}`,
        remedy: "Give the role's password in DATABASE_URL or PGPASSWORD.",
        cause: error,
      },
      "stop",
    );
  }
  if (code && /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL|ERR_OSSL/.test(code)) {
    return new PostgresTlsError({
      message: `the certificate of ${at} is not accepted (${code}): ${message}`,
      remedy:
        code === "ERR_TLS_CERT_ALTNAME_INVALID"
          ? "Connect by the name that stands in the server's certificate."
          : "Name the file of the certificate authority in TRIBUTARY_TLS_CA_FILE (for RDS: its global bundle).",
      cause: error,
    });
  }
  return new PostgresUnreachableError({
    message: `PostgreSQL at ${at} cannot be reached: ${message === "timeout expired" ? "no answer in time" : message || code}`,
    remedy: `Check host and port (DATABASE_URL or PGHOST, PGPORT), that the server listens on that address, and that no firewall or security group stands between.`,
    cause: error,
  });
}

/**
 * The typed error of a statement that failed where nothing says more about it: the session was lost, the server is stopping, or
 * it refuses. An error that is not of the database stays what it is.
 */
export function explainSessionError(error: unknown): unknown {
  const root = error instanceof SuppressedError ? firstOf(error) : error;
  if (root instanceof TributaryError || !(root instanceof Error)) return root;
  if (!(root instanceof pg.DatabaseError)) {
    if (!isConnectionLost(root)) return root;
    return new PostgresUnreachableError({
      message: `the connection to PostgreSQL was lost: ${root.message}`,
      remedy: "Start again. When it repeats, look at the network between and at the server's log.",
      cause: root,
    });
  }
  const code = root.code ?? "";
  if (/^(57P0|53)/.test(code)) {
    return new PostgresNotReadyError({
      message: `the server ended the session or has no room (${code}): ${root.message}`,
      remedy: "Start again when the server is up; see its log.",
      cause: root,
    });
  }
  if (code === "42501") {
    return new PostgresPermissionError({
      message: `the role may not do what it must: ${root.message}`,
      remedy: "GRANT what the message names, or let the owner do it.",
      cause: root,
    });
  }
  return new PostgresStatementError({
    // Of a value that it cannot convert or compute with, and of what a trigger raises, the server's words may quote rows.
    message: `the server refuses a statement (${code}): ${/^(22|P0)/.test(code) ? "what it says may quote a value, and stands in its own log" : root.message}`,
    remedy:
      code === "25006"
        ? "The server takes no writes: connect to the one that does (on Aurora the writer endpoint)."
        : "See the server's log for the statement and the reason.",
    cause: root,
  });
}

/** Returns the first failure: closing what was open failed only after it. */
function firstOf(error: SuppressedError): unknown {
  let first: unknown = error;
  while (first instanceof SuppressedError) first = first.suppressed;
  return first;
}

/** Returns true for the words of a socket, or of `pg` for it, when the other side is gone. */
function isConnectionLost(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return (
    (code !== undefined && /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ERR_STREAM|ERR_SOCKET)/.test(code)) ||
    /^Connection terminated|connection error and is not queryable|was closed and is not queryable|^no answer within/.test(
      error.message,
    )
  );
}

/** Returns true if a failed connection attempt means that the server is stopping, starting or not there. */
export function isServerEnding(error: unknown): boolean {
  const cause = (error as Error).cause as { code?: string } | undefined;
  return ["57P01", "57P02", "57P03", "ECONNREFUSED"].includes(cause?.code ?? "");
}

/** Poolers say who they are, or speak of parameters and limits that PostgreSQL does not have. */
function isPooler(message: string): boolean {
  return (
    /RDS Proxy/i.test(message) ||
    /unsupported startup parameter/i.test(message) ||
    /max_client_conn|max client conn|query_wait_timeout|MaxClientsInSessionMode/i.test(message) ||
    /pgbouncer|pgcat|odyssey|supavisor|pooler/i.test(message)
  );
}

/** A database whose text nobody but the server itself can read, or not even that. */
export function unreadableEncoding(database: string, what: string, dump = "UTF8"): PreflightProblem {
  const copy = quoteIdentifier(`${database}_utf8`);
  return {
    code: "ENCODING",
    message: `the encoding of the database "${database}" cannot be read: ${what}`,
    remedy: `Move it to UTF-8: CREATE DATABASE ${copy} TEMPLATE template0 ENCODING 'UTF8'; then pg_dump --encoding=${dump} of the one into the other, and capture that.`,
  };
}

/**
 * Returns what to do about the limit that was met. The server's words may be in any language, so the function that refuses says it:
 * InitProcess (proc.c) has no free backend or walsender, InitializeSessionUserId (miscinit.c) counts the role's, CheckMyDatabase
 * (postinit.c) the database's, InitPostgres (postinit.c) finds only what is kept for superusers.
 */
function connectionLimitRemedy(
  { routine }: pg.DatabaseError,
  { user, database }: PostgresConnectionOptions,
  replication: boolean,
): string {
  const [role, name] = [user, database].map((word) => quoteIdentifier(word));
  const instead = (column: string, value: string) =>
    `or end sessions that are not needed: SELECT pid, application_name, state FROM pg_stat_activity WHERE ${column} = ${pg.escapeLiteral(value)};`;
  switch (routine) {
    case "InitializeSessionUserId":
      return `The role's own limit is met: ALTER ROLE ${role} CONNECTION LIMIT -1; ${instead("usename", user)}`;
    case "CheckMyDatabase":
      return `The database's own limit is met: ALTER DATABASE ${name} CONNECTION LIMIT -1; ${instead("datname", database)}`;
    default:
      return replication && routine === "InitProcess"
        ? "The server's limit of replication sessions is met: raise max_wal_senders (a restart), or end sessions that are not needed: SELECT pid, application_name FROM pg_stat_replication;"
        : `The server's limit is met: raise max_connections (a restart), or end sessions that are not needed: SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2 ORDER BY 3 DESC;`;
  }
}

function ofServer(
  error: pg.DatabaseError,
  options: PostgresConnectionOptions,
  at: string,
  replication: boolean,
): Error {
  const facts = { cause: error };
  switch (error.code) {
    case "28P01":
    case "28000": {
      // A provider gives another password next time; a fixed one stays wrong.
      const retry: RetryDirective = typeof options.password === "string" ? "stop" : "retry";
      return new PostgresAuthenticationError(
        {
          ...facts,
          message: `the server at ${at} refuses user "${options.user}": ${error.message}`,
          remedy: /pg_hba/.test(error.message)
            ? `Let the role in with a line in pg_hba.conf: host ${options.database} ${options.user} <our address>/32 scram-sha-256${options.tls.mode === "disable" ? " (or set TRIBUTARY_TLS=verify-full where the server lets in TLS only)" : ""}`
            : `Correct user and password (DATABASE_URL, or PGUSER and PGPASSWORD; with a secret, its text). Or give the role that password: ALTER ROLE ${pg.escapeIdentifier(options.user)} PASSWORD '…';`,
        },
        retry,
      );
    }
    case "3D000":
      return new PostgresDatabaseMissingError({
        ...facts,
        message: `the server at ${at} has no database "${options.database}"`,
        remedy: "Correct the database name (the path of DATABASE_URL, or PGDATABASE).",
      });
    case "42501":
      return new PostgresPermissionError({
        ...facts,
        message: `user "${options.user}" may not connect to "${options.database}"${replication ? " for replication" : ""}: ${error.message}`,
        remedy: replication
          ? `ALTER ROLE ${quoteIdentifier(options.user)} WITH REPLICATION; (on RDS and Aurora: GRANT rds_replication TO ${quoteIdentifier(options.user)};)`
          : `GRANT CONNECT ON DATABASE ${quoteIdentifier(options.database)} TO ${quoteIdentifier(options.user)};`,
      });
    case "53300":
      return new PostgresNotReadyError({
        ...facts,
        message: `the server at ${at} takes no connection now: ${error.message}`,
        remedy: connectionLimitRemedy(error, options, replication),
      });
    case "57P01":
    case "57P02":
    case "57P03":
      return new PostgresNotReadyError({
        ...facts,
        message: `the server at ${at} takes no connection now: ${error.message}`,
        remedy: "Nothing to do: it is starting or stopping. We try again.",
      });
    default:
      if (error.code === "0A000" && error.routine === "InitializeClientEncoding")
        return new PreflightError([
          // Its characters have an encoding each: the server converts them to that one.
          unreadableEncoding(options.database, error.message, "EUC_JP (or the one that its text is of)"),
        ]);
      return new PostgresUnreachableError({
        ...facts,
        message: `the server at ${at} refuses the session (${error.code}): ${error.message}`,
        remedy: "See the server's log for the reason.",
      });
  }
}
