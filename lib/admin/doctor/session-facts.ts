import { withConnection } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";

/** The other end of a session. */
export interface SessionFacts {
  /** `localhost:5432/shop`. */
  readonly place: string;
  /** `18.4`. */
  readonly version: string;
  readonly user: string;
  /** The server's clock less ours, in milliseconds, as of the middle of a round trip. */
  readonly skewMs: number;
}

/** Opens a session, asks what is there, and ends it. @throws the errors of `connect` */
export async function readSession(
  connection: PostgresConnectionOptions,
  signal: AbortSignal,
): Promise<SessionFacts> {
  return await withConnection(connection, { signal }, async (client) => {
    const asked = Date.now();
    const { rows } = await client.query<{ now: number; version: string; user: string }>(
      `SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS now,
              split_part(current_setting('server_version'), ' ', 1) AS version, current_user::text AS "user"`,
    );
    const middle = (asked + Date.now()) / 2;
    const { now, version, user } = rows[0] as (typeof rows)[number];
    const { host, port, database } = connection;
    return { place: `${host}:${port}/${database}`, version, user, skewMs: now - middle };
  });
}
