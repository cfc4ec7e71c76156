import pg from "pg";
import { serverEncoding } from "../decode/values/charset.ts";
import { PostgresAuthenticationError, PostgresTlsError } from "../postgres-errors.ts";
import { explainConnectionError } from "./connection-errors.ts";
import type { PostgresConnectionOptions, PostgresTls, SessionOptions } from "./connection-options.ts";
import { sessionSettings } from "./session.ts";

export { connectionFromEnvironment, connectionFromUrl } from "./connection-environment.ts";

const DEFAULT_CONNECT_TIMEOUT_MS = 15_000;

const OF_CONNECTING = new WeakSet<object>();

/** Returns true if an error came from opening a session, the password's provider included: it says nothing of what the session was for. */
export function isOfConnecting(error: unknown): boolean {
  return typeof error === "object" && error !== null && OF_CONNECTING.has(error);
}

/**
 * Opens a session with pinned settings (see `session.ts`). SCRAM-SHA-256; a clear-text password (RDS IAM tokens
 * travel so) only under TLS `verify-full`, MD5 never. Every later error of the session arrives at its queries; the
 * `error` event has a listener already.
 *
 * @throws PostgresUnreachableError, PostgresNotReadyError, PostgresAuthenticationError,
 * PostgresDatabaseMissingError, PostgresTlsError, PostgresPoolerError, PostgresPermissionError.
 */
export async function connect(
  options: PostgresConnectionOptions,
  session: SessionOptions = {},
): Promise<pg.Client> {
  try {
    return options.hosts
      ? await options.hosts.connect(options, session, connectTo)
      : await connectTo(options, session);
  } catch (error) {
    if (typeof error === "object" && error !== null) OF_CONNECTING.add(error);
    throw error;
  }
}

async function connectTo(
  options: PostgresConnectionOptions,
  { replication = false, walSenderTimeoutMs, signal }: SessionOptions,
): Promise<pg.Client> {
  signal?.throwIfAborted();
  const { password } = options;
  let providerFailure: unknown;
  const config: pg.ClientConfig & { replication?: string } = {
    host: options.host,
    port: options.port,
    database: options.database,
    user: options.user,
    // A function also for a plain one: without a password `pg` would look for ~/.pgpass.
    password: async () => {
      if (typeof password === "string") return password;
      try {
        return await password();
      } catch (error) {
        providerFailure = error;
        throw error;
      }
    },
    ssl: sslOf(options.tls),
    application_name: options.applicationName ?? "tributary",
    connectionTimeoutMillis: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    options: startupOptions(walSenderTimeoutMs),
    ...(replication ? { replication: "database" } : {}),
  };
  const client = new pg.Client(config);
  client.on("error", () => {});
  const abort = () => client.connection.stream.destroy(new Error("aborted"));
  signal?.addEventListener("abort", abort, { once: true });
  const refusal = refuseWeakPasswords(client, options);
  try {
    await client.connect();
    await pinLateSettings(client, replication);
    return client;
  } catch (error) {
    client.connection.stream.destroy();
    signal?.throwIfAborted();
    throw refusal.error ?? explainConnectionError(error, options, { replication, providerFailure });
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** Ends a session; one that does not answer within a second is cut. */
export async function disconnect(client: pg.Client): Promise<void> {
  const { stream } = client.connection;
  const cut = setTimeout(() => stream.destroy(), 1000);
  await client.end().catch(() => {});
  clearTimeout(cut);
  stream.destroy();
}

/**
 * Does something over a session of its own, which ends with it, whatever becomes of it.
 *
 * @example
 * const { rows } = await withConnection(connection, { signal }, (client) => client.query("SELECT 1"));
 *
 * @throws the errors of `connect`, and those of `work` as they are.
 */
export async function withConnection<T>(
  options: PostgresConnectionOptions,
  session: SessionOptions,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await connect(options, session);
  try {
    return await work(client);
  } finally {
    await disconnect(client);
  }
}

function startupOptions(walSenderTimeoutMs: number | undefined): string {
  const pinned = sessionSettings("UTF8");
  return walSenderTimeoutMs === undefined
    ? pinned
    : `${pinned} -c wal_sender_timeout=${walSenderTimeoutMs}ms`;
}

/** Sets what the startup packet cannot say: `pg` writes its own client_encoding there, and older servers lack a setting. */
async function pinLateSettings(client: pg.Client, replication: boolean): Promise<void> {
  const { rows } = await client.query<{ server_encoding: string; version: string }>(
    "SELECT current_setting('server_encoding') AS server_encoding, current_setting('server_version_num') AS version",
  );
  const facts = rows[0];
  const encoding = facts?.server_encoding ?? "UTF8";
  // The log's text comes as it is, and is read by us (values/charset.ts).
  if (encoding === "SQL_ASCII" || (replication && serverEncoding(encoding)))
    await client.query(`SET client_encoding = '${encoding}'`);
  if (Number(facts?.version) >= 170_000) await client.query("SET transaction_timeout = 0");
}

function sslOf(tls: PostgresTls): pg.ClientConfig["ssl"] {
  switch (tls.mode) {
    case "disable":
      return false;
    case "require":
      return { rejectUnauthorized: false, minVersion: "TLSv1.2" };
    case "verify-full":
      return { rejectUnauthorized: true, minVersion: "TLSv1.2", ...(tls.ca ? { ca: tls.ca } : {}) };
  }
}

/** Cuts the connection before `pg` answers a request for a password in a form that others could use. */
function refuseWeakPasswords(client: pg.Client, options: PostgresConnectionOptions): { error?: Error } {
  const refusal: { error?: Error } = {};
  const cut = (error: Error) => {
    refusal.error ??= error;
    client.connection.removeAllListeners("authenticationCleartextPassword");
    client.connection.removeAllListeners("authenticationMD5Password");
    client.connection.stream.destroy(error);
  };
  client.connection.prependListener("authenticationMD5Password", () =>
    cut(
      new PostgresAuthenticationError(
        {
          message: `the server asks user "${options.user}" for an MD5 password: only SCRAM-SHA-256 is used`,
          remedy: `On the server: SET password_encryption = 'scram-sha-256'; then set the password of "${options.user}" again (ALTER ROLE … PASSWORD …), and write scram-sha-256 in pg_hba.conf.`,
        },
        "stop",
      ),
    ),
  );
  if (options.tls.mode !== "verify-full") {
    client.connection.prependListener("authenticationCleartextPassword", () =>
      cut(
        new PostgresTlsError({
          message: `the server asks user "${options.user}" for a clear-text password, and TLS is "${options.tls.mode}"`,
          remedy:
            "Set TRIBUTARY_TLS=verify-full (RDS IAM tokens travel so; TRIBUTARY_TLS_CA_FILE names the RDS bundle), or write scram-sha-256 in pg_hba.conf.",
        }),
      ),
    );
  }
  return refusal;
}
