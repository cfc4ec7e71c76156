import type pg from "pg";
import type { LogPipeline } from "../../pipeline.ts";
import { connect, disconnect, type PostgresConnectionOptions } from "../../source/postgres/connection.ts";
import { checkSlotKind, identifySystem, readSlot } from "../../source/postgres/slot.ts";
import { slotNames, slotNumbers } from "../../source/postgres/slots/assignment.ts";
import { CaptureState } from "../../state/capture-state.ts";
import type { LocalAws } from "../host.ts";

/** Which of the pipeline's traces the database has. */
export async function lookForTraces(
  connection: PostgresConnectionOptions,
  { source }: LogPipeline,
  signal: AbortSignal,
): Promise<{ readonly slot: boolean; readonly publication: boolean }> {
  const client = await connect(connection, { signal });
  try {
    const { rows } = await client.query<{ slot: boolean; publication: boolean }>(
      `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = ANY ($1)) AS slot,
              EXISTS (SELECT FROM pg_publication WHERE pubname = ANY ($2)) AS publication`,
      [names(source).map(({ slot }) => slot), names(source).map(({ publication }) => publication)],
    );
    return rows[0] ?? { slot: false, publication: false };
  } finally {
    await disconnect(client);
  }
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
  const client = await connect(connection, { replication: true, signal });
  try {
    for (const number of slotNumbers(definition))
      await resumeSlot(client, connection, definition, number, aws, signal);
  } finally {
    await disconnect(client);
  }
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
  const client = await connect(connection);
  try {
    for (const { slot, publication } of names(source)) {
      await client.query(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
        [slot],
      );
      await client.query(`DROP PUBLICATION IF EXISTS ${client.escapeIdentifier(publication)}`);
    }
  } finally {
    await disconnect(client);
  }
}
