import type pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import type { TributaryError } from "../../change/tributary-error.ts";
import { readPublication } from "./catalog/publication.ts";
import type { LogPipeline } from "./definition.ts";
import { withConnection } from "./link/connection.ts";
import type { PostgresConnectionOptions } from "./link/connection-options.ts";
import { slotInUse } from "./link/replication-errors.ts";
import { checkOurs, dropSlot, readSlot, type SlotFacts } from "./slot/slot.ts";
import { slotNames, slotNumbers } from "./slots/assignment.ts";

/** State at the server of one of a pipeline's slots. */
export interface LogTeardownPlan {
  readonly removes: boolean;
  readonly inUse: TributaryError | undefined;
  /** The pipeline's slot; undefined: there is none. */
  readonly slot: SlotFacts | undefined;
  /** WAL that it holds back. */
  readonly heldBytes: number;
  /** `drop`: we made it. `keep`: others did. `none`: it is not there. */
  readonly publication: "drop" | "keep" | "none";
  /** Slots of this database that are not the pipeline's and that nobody reads from, with the WAL they hold back. */
  readonly idleSlots: readonly { readonly name: string; readonly heldBytes: number }[];
}

interface Place {
  readonly pipeline: LogPipeline;
  readonly number: number;
  readonly connection: PostgresConnectionOptions;
  readonly signal: AbortSignal;
}

/**
 * Returns what tearing one of the pipeline's slots down would drop. Touches nothing.
 * @throws SlotForeignError for a slot of that name that is not ours; the errors of `connect`.
 */
export async function planLogTeardown(place: Place): Promise<LogTeardownPlan> {
  return await withClient(place, (client) => look(client, place));
}

/**
 * Drops one of the pipeline's slots, and its publication where we made it. Nothing else: no table, no role, no setting.
 * @throws SlotInUseError while somebody reads from the slot; what `planLogTeardown` throws.
 */
export async function tearLogDown(place: Place): Promise<LogTeardownPlan> {
  return await withClient(place, async (client) => {
    const found = await look(client, place);
    if (found.slot) await dropSlot(client, found.slot);
    // Behind the slot: while there is one, it cannot be decoded without its publication.
    if (found.publication === "drop") {
      const { publication } = slotNames(place.pipeline.source, place.number);
      await client.query(`DROP PUBLICATION ${quoteIdentifier(publication)}`);
    }
    return found;
  });
}

/** The plans of all slots, in words. */
export function describeLogTeardown(
  plans: readonly LogTeardownPlan[],
  pipeline: LogPipeline,
  when: "will be" | "was",
): string[] {
  const idle = plans[0]?.idleSlots ?? [];
  const readers =
    when === "was" ? [] : plans.flatMap(({ slot }) => (slot?.activePid === undefined ? [] : slot.activePid));
  return [
    ...plans.flatMap((plan, i) => describeSlot(plan, slotNames(pipeline.source, i + 1), when)),
    ...idle.map(
      ({ name, heldBytes }) =>
        `Not this pipeline's, and nobody reads from it: the slot "${name}" holds back ${held(heldBytes)}.`,
    ),
    ...readers.map(
      (pid) => `Process ${pid} reads from the slot: stop the capture task first, or this is refused.`,
    ),
  ];
}

function describeSlot(
  { slot, heldBytes, publication }: LogTeardownPlan,
  source: ReturnType<typeof slotNames>,
  when: "will be" | "was",
): string[] {
  const publicationLine = {
    drop: `The publication "${source.publication}" ${when} dropped.`,
    keep: `The publication "${source.publication}" stays: we did not make it.`,
    none: `There is no publication "${source.publication}" in this database.`,
  };
  return [
    slot
      ? `The replication slot "${slot.name}" ${when} dropped${slot.activePid === undefined ? `, which ${when === "was" ? "held" : "holds"} back ${held(heldBytes)}` : ""}.`
      : `There is no replication slot "${source.slot}" on this server.`,
    publicationLine[publication],
  ];
}

function held(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MB of WAL`;
}

async function withClient<T>(
  { connection, signal }: Place,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  return await withConnection(connection, { signal }, async (client) => {
    return await work(client);
  });
}

async function look(client: pg.Client, { pipeline, number }: Place): Promise<LogTeardownPlan> {
  const source = slotNames(pipeline.source, number);
  const own = slotNumbers(pipeline).map((each) => slotNames(pipeline.source, each).slot);
  const query = (sql: string) => client.query(sql);
  const { rows } = await client.query<{ version: string; database: string }>(
    "SELECT current_setting('server_version_num') AS version, current_database() AS database",
  );
  const { version, database } = rows[0] as { version: string; database: string };
  const slot = await readSlot(query, source.slot);
  if (slot) checkOurs(slot, database);
  const found = await readPublication(client, source.publication, Number(version));
  const publication = !found ? "none" : found.ours ? "drop" : "keep";
  const idle = await idleSlots(client);
  return {
    removes: slot !== undefined || publication === "drop",
    inUse: slot?.activePid === undefined ? undefined : slotInUse(slot.name, slot.activePid, slot.holder),
    slot,
    heldBytes: idle.get(source.slot) ?? 0,
    publication,
    idleSlots: [...idle]
      .filter(([name]) => !own.includes(name))
      .map(([name, heldBytes]) => ({ name, heldBytes })),
  };
}

/** Logical slots of this database that nobody reads from, by name, with the bytes of WAL they hold back. */
async function idleSlots(client: pg.Client): Promise<ReadonlyMap<string, number>> {
  const { rows } = await client.query<{ name: string; held: string }>(`
    SELECT slot_name AS name,
           greatest(0, coalesce(pg_wal_lsn_diff(
             CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
             restart_lsn), 0))::bigint::text AS held
      FROM pg_replication_slots
     WHERE slot_type = 'logical' AND NOT active AND database = current_database()
     ORDER BY slot_name`);
  return new Map(rows.map(({ name, held }) => [name, Number(held)]));
}
