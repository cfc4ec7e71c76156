import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type pg from "pg";
import type { LogPipeline } from "../definition/pipeline.ts";
import { readPublication } from "../source/postgres/catalog/publication.ts";
import { connect, disconnect } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { slotInUse } from "../source/postgres/link/replication-errors.ts";
import { quoteIdentifier } from "../source/postgres/preflight/captured-tables.ts";
import { checkOurs, dropSlot, readSlot, type SlotFacts } from "../source/postgres/slot/slot.ts";
import { slotNames, slotNumbers } from "../source/postgres/slots/assignment.ts";
import { CaptureState } from "../state/capture-state.ts";

/** What is torn down, and where. */
export interface TeardownOptions {
  readonly pipeline: LogPipeline;
  /** The number of the slot. Default 1. */
  readonly number?: number;
  readonly connection: PostgresConnectionOptions;
  /**
   * The capture lease is held meanwhile, so that a task between two connections is seen too. Undefined: the state table is
   * gone, and only a reader of the slot is seen.
   */
  readonly lease:
    | {
        readonly dynamodb: DynamoDBClient;
        readonly stateTable: string;
        /** The capture tasks' own, or a living one would be taken for dead. */
        readonly leaseMs: number;
      }
    | undefined;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

/** What stands at the server. */
export interface TeardownPlan {
  /** The pipeline's slot; undefined: there is none. */
  readonly slot: SlotFacts | undefined;
  /** WAL that it holds back. */
  readonly heldBytes: number;
  /** `drop`: we made it. `keep`: others did. `none`: it is not there. */
  readonly publication: "drop" | "keep" | "none";
  /** Slots of this database that are not the pipeline's and that nobody reads from, with the WAL they hold back. */
  readonly idleSlots: readonly { readonly name: string; readonly heldBytes: number }[];
}

/** A living capture task renews within a third of its lease: this much longer than a lease is enough to see it. */
const LEASE_MARGIN_MS = 5_000;

/**
 * What tearing the pipeline down would drop at the server. Touches nothing.
 * @throws SlotForeignError for a slot of that name that is not ours; the errors of `connect`.
 */
export async function planTeardown({
  pipeline,
  number = 1,
  connection,
  signal,
}: Pick<TeardownOptions, "pipeline" | "number" | "connection" | "signal">): Promise<TeardownPlan> {
  const client = await connect(connection, { signal });
  try {
    return await plan(client, pipeline, number);
  } finally {
    await disconnect(client);
  }
}

/**
 * Drops one of the pipeline's slots, and its publication where we made it. Nothing else: no table, no role, no setting.
 *
 * @throws SlotInUseError while somebody reads from the slot, CaptureLeaseHeldError while a capture task runs; nothing was
 * dropped then. What `planTeardown` throws.
 */
export async function teardown(options: TeardownOptions): Promise<TeardownPlan> {
  const { pipeline, number = 1, connection, lease, signal, log } = options;
  const seen = (await planTeardown(options)).slot;
  // At once; what comes after this is found below.
  if (seen?.activePid !== undefined) throw slotInUse(seen.name, seen.activePid, seen.holder);
  const state =
    lease &&
    (await CaptureState.take({
      dynamodb: lease.dynamodb,
      table: lease.stateTable,
      pipeline: pipeline.name,
      slot: number,
      leaseMs: lease.leaseMs,
      waitMs: lease.leaseMs + LEASE_MARGIN_MS,
      signal,
      log,
    }));
  try {
    const client = await connect(connection, { signal });
    try {
      const found = await plan(client, pipeline, number);
      if (found.slot) await dropSlot(client, found.slot);
      // Behind the slot: while there is one, it cannot be decoded without its publication.
      if (found.publication === "drop")
        await client.query(
          `DROP PUBLICATION ${quoteIdentifier(slotNames(pipeline.source, number).publication)}`,
        );
      return found;
    } finally {
      await disconnect(client);
    }
  } finally {
    await state?.release();
  }
}

async function plan(client: pg.Client, pipeline: LogPipeline, number: number): Promise<TeardownPlan> {
  const source = slotNames(pipeline.source, number);
  const own = slotNumbers(pipeline).map((each) => slotNames(pipeline.source, each).slot);
  const query = (sql: string) => client.query(sql);
  const { rows } = await client.query<{ version: string; database: string }>(
    "SELECT current_setting('server_version_num') AS version, current_database() AS database",
  );
  const { version, database } = rows[0] as { version: string; database: string };
  const slot = await readSlot(query, source.slot);
  if (slot) checkOurs(slot, database);
  const publication = await readPublication(client, source.publication, Number(version));
  const idle = await idleSlots(client);
  return {
    slot,
    heldBytes: idle.get(source.slot) ?? 0,
    publication: !publication ? "none" : publication.ours ? "drop" : "keep",
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
