import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { MAX_SLOTS, slotSuffix } from "../../source/postgres/definition.ts";
import { withConnection } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { slotInUse } from "../../source/postgres/link/replication-errors.ts";
import { SlotInUseError } from "../../source/postgres/postgres-errors.ts";
import { DEV_PREFIX } from "./slot-name.ts";

/** A slot that some `tributary dev` has made on the server, in whichever database. */
export interface DevSlot {
  readonly name: string;
  readonly database: string;
  /** Process that reads from it. */
  readonly activePid: number | undefined;
  /** WAL that the server keeps for it. */
  readonly retainedBytes: number | undefined;
  /** Since when nobody reads from it, where the server tells: PostgreSQL 17. */
  readonly inactiveSince: Date | undefined;
}

const READER_ENDS_MS = 3_000;
const LOOK_MS = 50;

/** Tells whether a server is this machine's: nobody else's disk fills, and nobody else's slots are there. */
export function isThisMachine({ host, hosts }: PostgresConnectionOptions): boolean {
  const all = hosts ? hosts.list.map((one) => one.host) : [host];
  return all.every(
    (name) => name === "" || name.startsWith("/") || /^(localhost|127(\.\d+){3}|\[?::1\]?)$/i.test(name),
  );
}

/** All slots of `tributary dev` on a server, by name. */
export async function devSlots(client: pg.Client): Promise<readonly DevSlot[]> {
  const { rows } = await client.query<{
    name: string;
    database: string;
    pid: number | null;
    bytes: string | null;
    since: string | null;
  }>(
    // Columns that an older server has not are looked for in the row as JSON.
    `SELECT slot_name::text AS name, database::text AS database, active_pid AS pid,
            CASE WHEN pg_is_in_recovery() THEN NULL
                 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint::text END AS bytes,
            to_jsonb(s) ->> 'inactive_since' AS since
       FROM pg_replication_slots s
      WHERE starts_with(slot_name::text, $1) ORDER BY slot_name`,
    [DEV_PREFIX],
  );
  return rows.map(({ name, database, pid, bytes, since }) => ({
    name,
    database,
    activePid: pid ?? undefined,
    retainedBytes: bytes === null ? undefined : Number(bytes),
    inactiveSince: since === null ? undefined : new Date(since),
  }));
}

/** Tells whether a slot, or a publication, is the one of that name or a further one of the same pipeline. */
export function isOfName(found: string, name: string): boolean {
  return ownNames(name).includes(found);
}

function ownNames(name: string): string[] {
  return Array.from({ length: MAX_SLOTS }, (_, i) => `${name}${slotSuffix(i + 1)}`);
}

/**
 * Drops the slots and publications of that name, and of further slots; gives the names of what was dropped.
 * @throws SlotInUseError where somebody goes on reading from one of the slots: nothing was dropped then.
 */
export async function dropDevTraces(
  connection: PostgresConnectionOptions,
  name: string,
  signal?: AbortSignal,
): Promise<readonly string[]> {
  return await withConnection(connection, { signal }, async (client) => {
    const slots = await unreadSlots(client, name, signal);
    for (const slot of slots) await client.query("SELECT pg_drop_replication_slot($1)", [slot.name]);
    const { rows } = await client.query<{ name: string }>(
      "SELECT pubname::text AS name FROM pg_publication WHERE pubname = ANY ($1)",
      [ownNames(name)],
    );
    for (const publication of rows)
      await client.query(`DROP PUBLICATION ${quoteIdentifier(publication.name)}`);
    return [...slots.map((slot) => slot.name), ...rows.map((publication) => publication.name)];
  });
}

/** The slots of a name, once the reader of a run that has ended is gone: the server takes a moment to see it. */
async function unreadSlots(
  client: pg.Client,
  name: string,
  signal: AbortSignal | undefined,
): Promise<readonly DevSlot[]> {
  const deadline = performance.now() + READER_ENDS_MS;
  for (;;) {
    const slots = (await devSlots(client)).filter((slot) => isOfName(slot.name, name));
    const read = slots.find(({ activePid }) => activePid !== undefined);
    if (read?.activePid === undefined) return slots;
    if (performance.now() > deadline) throw readByOthers(read.name, read.activePid, undefined);
    await delay(LOOK_MS, undefined, { ...(signal && { signal }) });
  }
}

/** Somebody else reads from a slot of this project's name: the definition has no say in that name. */
export function readByOthers(slot: string, pid: number, holder: string | undefined): SlotInUseError {
  return new SlotInUseError({
    message: slotInUse(slot, pid, holder).message,
    remedy: `The name comes from .tributary/. Where this folder is a copy of another one, whose run reads from the slot, remove .tributary/ here: this one then gets a slot of its own. A reader that hangs: SELECT pg_terminate_backend(${pid});`,
  });
}

/** The SQL that drops them by hand. */
export function dropSql(name: string): string {
  return `SELECT pg_drop_replication_slot(${pg.escapeLiteral(name)}); DROP PUBLICATION IF EXISTS ${quoteIdentifier(name)};`;
}
