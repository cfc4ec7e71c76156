import type pg from "pg";
import { databaseConnection } from "../credentials/database-connection.ts";
import { connectionFromUrl, withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";

/** The database that `--database-url` names, or the one that the capture task finds in the environment. */
export async function commandDatabase(databaseUrl: string | undefined): Promise<PostgresConnectionOptions> {
  return databaseUrl ? connectionFromUrl(databaseUrl, process.env) : await databaseConnection(process.env);
}

/** Does something over a connection to that database, and closes it. @throws the errors of `connect` */
export async function withDatabase<T>(
  databaseUrl: string | undefined,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  return await withConnection(await commandDatabase(databaseUrl), {}, work);
}
