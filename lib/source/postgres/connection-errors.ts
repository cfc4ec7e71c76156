import pg from "pg";
import { type RetryDirective, TributaryError } from "../../errors.ts";
import type { PostgresConnectionOptions } from "./connection.ts";
import {
  PostgresAuthenticationError,
  PostgresDatabaseMissingError,
  PostgresNotReadyError,
  PostgresPermissionError,
  PostgresPoolerError,
  PostgresTlsError,
  PostgresUnreachableError,
} from "./errors.ts";

interface Circumstances {
  readonly replication: boolean;
  /** What the password provider threw, if it did. */
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

/** Whether a failed connection attempt means that the server is stopping, starting or not there. */
export function isServerEnding(error: unknown): boolean {
  const cause = (error as Error).cause as { code?: string } | undefined;
  return ["57P01", "57P02", "57P03", "ECONNREFUSED"].includes(cause?.code ?? "");
}

function isPooler(message: string): boolean {
  return (
    /RDS Proxy/i.test(message) ||
    /unsupported startup parameter/i.test(message) ||
    /pgbouncer|pooler/i.test(message)
  );
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
            : "Correct user and password (DATABASE_URL, or PGUSER and PGPASSWORD).",
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
          ? `ALTER ROLE ${pg.escapeIdentifier(options.user)} WITH REPLICATION; (on RDS and Aurora: GRANT rds_replication TO ${pg.escapeIdentifier(options.user)};)`
          : `GRANT CONNECT ON DATABASE ${pg.escapeIdentifier(options.database)} TO ${pg.escapeIdentifier(options.user)};`,
      });
    case "53300":
    case "57P01":
    case "57P02":
    case "57P03":
      return new PostgresNotReadyError({
        ...facts,
        message: `the server at ${at} takes no connection now: ${error.message}`,
        remedy:
          error.code === "53300"
            ? "Raise max_connections or max_wal_senders, or close connections that are not needed."
            : "Nothing to do: it is starting or stopping. We try again.",
      });
    default:
      return new PostgresUnreachableError({
        ...facts,
        message: `the server at ${at} refuses the session (${error.code}): ${error.message}`,
        remedy: "See the server's log for the reason.",
      });
  }
}
