import type pg from "pg";

/** Facts of the server, the database and our role. */
export interface ServerFacts {
  /** `server_version_num`: 180004. */
  readonly version: number;
  readonly database: string;
  readonly encoding: string;
  readonly standby: boolean;
  readonly walLevel: string;
  /** `max_slot_wal_keep_size` as PostgreSQL prints it; `-1` is no bound. */
  readonly maxSlotWalKeepSize: string;
  readonly maxReplicationSlots: number;
  readonly usedReplicationSlots: number;
  readonly maxWalSenders: number;
  readonly usedWalSenders: number;
  readonly user: string;
  readonly superuser: boolean;
  /** May replicate: superuser, REPLICATION, or member of `rds_replication`. */
  readonly mayReplicate: boolean;
  /** May create publications in this database. */
  readonly mayCreate: boolean;
  /** RDS or Aurora: settings live in parameter groups there. */
  readonly rds: boolean;
}

const QUERY = `
  SELECT current_setting('server_version_num')::int AS version,
         current_database()::text AS database,
         current_setting('server_encoding') AS encoding,
         pg_is_in_recovery() AS standby,
         current_setting('wal_level') AS "walLevel",
         current_setting('max_slot_wal_keep_size') AS "maxSlotWalKeepSize",
         current_setting('max_replication_slots')::int AS "maxReplicationSlots",
         (SELECT count(*)::int FROM pg_replication_slots) AS "usedReplicationSlots",
         current_setting('max_wal_senders')::int AS "maxWalSenders",
         (SELECT count(*)::int FROM pg_stat_replication) AS "usedWalSenders",
         r.rolname::text AS "user",
         r.rolsuper AS superuser,
         r.rolsuper OR r.rolreplication OR EXISTS (
           SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER')
         ) AS "mayReplicate",
         has_database_privilege(current_database(), 'CREATE') AS "mayCreate",
         EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser') AS rds
    FROM pg_roles r WHERE r.rolname = current_user`;

/** Asks for `server_version_num` alone: 180004. */
export async function readServerVersion(client: pg.ClientBase): Promise<number> {
  const { rows } = await client.query<{ version: number }>(
    "SELECT current_setting('server_version_num')::int AS version",
  );
  return (rows[0] as { version: number }).version;
}

/** Asks the server what it is. */
export async function readServerFacts(client: pg.Client): Promise<ServerFacts> {
  const { rows } = await client.query<ServerFacts & pg.QueryResultRow>(QUERY);
  return rows[0] as ServerFacts;
}
