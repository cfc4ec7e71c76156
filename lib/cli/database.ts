import type pg from "pg";
import { ConfigurationError } from "../change/tributary-error.ts";
import { databaseConnection } from "../credentials/database-connection.ts";
import { connectionFromUrl, withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { note } from "./say.ts";
import { CHOSEN_STACK_VARIABLE } from "./speak-to-stack.ts";

/** Variables that name a database. */
const DATABASE_VARIABLES = ["DATABASE_URL", "PGHOST", "TRIBUTARY_DATABASE_SECRET_ARN"];

/**
 * The database that `--database-url` names, or the one that the capture task finds in the environment. A stack does not tell its own: it is
 * told which one is meant beside it.
 * @throws ConfigurationError
 */
export async function commandDatabase(
  databaseUrl: string | undefined,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<PostgresConnectionOptions> {
  const stack = environment[CHOSEN_STACK_VARIABLE];
  if (stack && !databaseUrl && !DATABASE_VARIABLES.some((name) => environment[name])) {
    const remedy = `add --remote to run in the network of the stack ${stack}, or name the database with --database-url`;
    throw new ConfigurationError("The command line", [{ path: "--remote", value: undefined, remedy }]);
  }
  const connection = databaseUrl
    ? connectionFromUrl(databaseUrl, environment)
    : await databaseConnection(environment);
  if (stack)
    note(
      `the database is ${connection.host}:${connection.port}/${connection.database}: see that it is the one of the stack ${stack}`,
    );
  return connection;
}

/** Does something over a connection to that database, and closes it. @throws the errors of `connect` */
export async function withDatabase<T>(
  databaseUrl: string | undefined,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  return await withConnection(await commandDatabase(databaseUrl), {}, work);
}
