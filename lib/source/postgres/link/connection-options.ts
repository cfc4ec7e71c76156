import type pg from "pg";

/** Protection of the link. `require` encrypts without looking whom we talk to; `verify-full` looks. */
export interface PostgresTls {
  readonly mode: "disable" | "require" | "verify-full";
  /** Certificate authorities (PEM) to trust instead of the system's; for RDS its bundle. */
  readonly ca?: string;
}

/** Address of a PostgreSQL server, and our identity there. */
export interface PostgresConnectionOptions {
  readonly host: string;
  readonly port: number;
  /** Set if there are several servers: `host` and `port` are the first one's, and each session looks for the one that takes writes. */
  readonly hosts?: ServerChoice | undefined;
  readonly database: string;
  readonly user: string;
  /** A function is asked for every connection: RDS IAM tokens live 15 minutes. */
  readonly password: string | (() => Promise<string>);
  readonly tls: PostgresTls;
  /** Until the session is ready; default 15 s. */
  readonly connectTimeoutMs?: number;
  /** Shown in `pg_stat_activity`; default `tributary`. */
  readonly applicationName?: string;
}

/** Options of one session. */
export interface SessionOptions {
  /** A walsender session: the replication protocol, simple queries only. */
  readonly replication?: boolean;
  /** `wal_sender_timeout` of a replication session, in milliseconds (rule 21: never 0). */
  readonly walSenderTimeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A server of several behind one database. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Several servers, one of which takes writes. */
export interface ServerChoice {
  readonly list: readonly HostPort[];
  /** All but the one that was found to take writes; none before one was. */
  readonly others: readonly HostPort[];
  /** No server on an older timeline is taken from now on. */
  noteTimeline(timeline: number): void;
  /**
   * A session on the server that takes writes: `open` opens one on a given server.
   * @throws PostgresUnreachableError that says of each server why it was not taken; an error of all of them that stops.
   */
  connect(
    options: PostgresConnectionOptions,
    session: SessionOptions,
    open: (options: PostgresConnectionOptions, session: SessionOptions) => Promise<pg.Client>,
  ): Promise<pg.Client>;
}

/** Runs one statement on a session. */
export type TextQuery = (sql: string) => Promise<{ readonly rows: readonly unknown[] }>;
