import { ConfigurationError } from "../change/tributary-error.ts";
import { connectionFromUrl } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { databaseConnection } from "./database-connection.ts";

/** Names the standby that backfills read rows from. */
export const STANDBY_VARIABLE = "TRIBUTARY_BACKFILL_DATABASE_URL";

/**
 * The standby that existing rows are read from, or undefined. `postgres://host:5432/database` says where it is, and who we
 * are there is proven as at the primary (secret, IAM token, `PGPASSWORD`): a standby has its roles. A URL with a
 * password is taken as it is.
 *
 * @throws ConfigurationError, SecretUnavailableError, SecretFormatError
 */
export async function standbyConnection(
  environment: Readonly<Record<string, string | undefined>>,
  signal?: AbortSignal,
): Promise<PostgresConnectionOptions | undefined> {
  const text = environment[STANDBY_VARIABLE];
  if (!text) return undefined;
  const form = "write postgres://host:5432/database, or postgres://user:password@host:5432/database";
  const wrong = new ConfigurationError("The connection to the standby", [
    { path: STANDBY_VARIABLE, value: "(not shown: it may hold a password)", remedy: form },
  ]);
  if (!/^postgres(ql)?:\/\//.test(text) || !URL.canParse(text)) throw wrong;
  const url = new URL(text);
  // Of several servers the one that takes writes would be looked for.
  if (url.hostname.includes(",") || url.searchParams.get("host")?.includes(",")) {
    throw new ConfigurationError("The connection to the standby", [
      { path: STANDBY_VARIABLE, value: "several servers", remedy: "name one standby" },
    ]);
  }
  if (url.password) return connectionFromUrl(text, environment);
  const { DATABASE_URL: _, ...rest } = environment;
  return databaseConnection(rest, signal, text);
}
