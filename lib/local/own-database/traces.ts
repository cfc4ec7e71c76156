import pg from "pg";
import { quoteIdentifier } from "../../change/sql-identifier.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import { MAX_SLOTS } from "../../source/postgres/definition.ts";
import { withConnection } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { slotInUse } from "../../source/postgres/link/replication-errors.ts";
import { checkSlotKind, identifySystem, readSlot } from "../../source/postgres/slot/slot.ts";
import { slotNames, slotNumbers } from "../../source/postgres/slots/assignment.ts";
import { CaptureState } from "../../state/capture-state.ts";
import type { LocalAws } from "../host.ts";

/** Names of what runs on this database have made: of each slot that a definition could have. */
export interface Traces {
  readonly slots: readonly string[];
  readonly publications: readonly string[];
}

/** Finds the traces that the database has. */
export async function lookForTraces(
  connection: PostgresConnectionOptions,
  { source }: LogPipeline,
  signal: AbortSignal,
): Promise<Traces> {
  const all = Array.from({ length: MAX_SLOTS }, (_, i) => slotNames(source, i + 1));
  return await withConnection(connection, { signal }, async (client) => {
    const { rows } = await client.query<Traces>(
      `SELECT ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = ANY ($1)) AS slots,
              ARRAY(SELECT pubname::text FROM pg_publication WHERE pubname = ANY ($2)) AS publications`,
      [all.map(({ slot }) => slot), all.map(({ publication }) => publication)],
    );
    return rows[0] ?? { slots: [], publications: [] };
  });
}

/**
 * The state table of an earlier run, which would tell, is gone with its emulator.
 * @throws ConfigurationError where that run had more slots: their tables would have no reader.
 */
export function checkFurtherSlots({ source }: LogPipeline, { slots, publications }: Traces): void {
  const own = names(source);
  const further = slots.filter((name) => !own.some(({ slot }) => slot === name));
  if (further.length === 0) return;
  const left = publications.filter((name) => !own.some(({ publication }) => publication === name));
  throw new ConfigurationError("The pipeline definition", [
    {
      path: "source.slots",
      value: source.slots,
      remedy: `an earlier run on this database left more slots: start with as many, or drop them, and what they still hold is not seen: ${dropSql({ slots: further, publications: left })}`,
    },
  ]);
}

/**
 * Refuses to start beside another reader: the lease of a local run is its own, so it could not tell a dying one from a healthy one.
 * @throws SlotInUseError
 */
export async function checkUnread(
  connection: PostgresConnectionOptions,
  { source }: LogPipeline,
  signal: AbortSignal,
): Promise<void> {
  await withConnection(connection, { signal }, async (client) => {
    for (const { slot } of names(source)) {
      const found = await readSlot((sql) => client.query(sql), slot);
      if (found?.activePid !== undefined) throw slotInUse(slot, found.activePid, found.holder);
    }
  });
}

/** The SQL that drops traces, in one line. */
export function dropSql({ slots, publications }: Traces): string {
  return [
    ...slots.map((name) => `SELECT pg_drop_replication_slot(${pg.escapeLiteral(name)});`),
    ...publications.map((name) => `DROP PUBLICATION ${quoteIdentifier(name)};`),
  ].join(" ");
}

/** Of each of its slots. */
export function names(source: LogPipeline["source"]) {
  return slotNumbers({ source }).map((number) => slotNames(source, number));
}

/**
 * Writes the records of the slots that an earlier run left: the state table of that run is gone with its emulator, and the
 * slot itself is the only one who knows how far it had come.
 */
export async function resumeSlots(
  connection: PostgresConnectionOptions,
  definition: LogPipeline,
  aws: LocalAws,
  signal: AbortSignal,
): Promise<void> {
  await withConnection(connection, { replication: true, signal }, async (client) => {
    for (const number of slotNumbers(definition))
      await resumeSlot(client, connection, definition, number, aws, signal);
  });
}

async function resumeSlot(
  client: pg.Client,
  { database }: PostgresConnectionOptions,
  definition: LogPipeline,
  number: number,
  aws: LocalAws,
  signal: AbortSignal,
): Promise<void> {
  const { slot: name, publication } = slotNames(definition.source, number);
  const slot = await readSlot((sql) => client.query(sql), name);
  if (slot === undefined) return;
  checkSlotKind(slot, database);
  const system = await identifySystem(client);
  const state = await CaptureState.take({
    dynamodb: aws.clients.dynamodb,
    table: aws.resources.stateTable,
    pipeline: definition.name,
    slot: number,
    signal,
    log: () => {},
  });
  await state.write({
    epoch: 1,
    slot: name,
    publication,
    database,
    systemId: system.systemId,
    timeline: system.timeline,
    confirmedLsn: slot.confirmedLsn,
    recentCommits: [],
  });
  await state.release();
}

/** Drops slots and publications. */
export async function dropTraces(
  connection: PostgresConnectionOptions,
  { source }: LogPipeline,
): Promise<void> {
  await withConnection(connection, {}, async (client) => {
    for (const { slot, publication } of names(source)) {
      await client.query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
        [slot],
      );
      await client.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(publication)}`);
    }
  });
}
