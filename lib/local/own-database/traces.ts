import type { LogPipeline } from "../../pipeline.ts";
import { connect, disconnect, type PostgresConnectionOptions } from "../../source/postgres/connection.ts";
import { checkSlotKind, identifySystem, readSlot } from "../../source/postgres/slot.ts";
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
      `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1) AS slot,
              EXISTS (SELECT FROM pg_publication WHERE pubname = $2) AS publication`,
      [source.slot, source.publication],
    );
    return rows[0] ?? { slot: false, publication: false };
  } finally {
    await disconnect(client);
  }
}

/**
 * Writes the record of a slot that an earlier run left: the state table of that run is gone with its emulator, and the
 * slot itself is the only one who knows how far it had come.
 */
export async function resumeSlot(
  connection: PostgresConnectionOptions,
  definition: LogPipeline,
  aws: LocalAws,
  signal: AbortSignal,
): Promise<void> {
  const client = await connect(connection, { replication: true, signal });
  try {
    const { slot: name, publication } = definition.source;
    const slot = await readSlot((sql) => client.query(sql), name);
    if (slot === undefined) return;
    checkSlotKind(slot, connection.database);
    const system = await identifySystem(client);
    const state = await CaptureState.take({
      dynamodb: aws.clients.dynamodb,
      table: aws.resources.stateTable,
      pipeline: definition.name,
      signal,
      log: () => {},
    });
    await state.write({
      epoch: 1,
      slot: name,
      publication,
      database: connection.database,
      systemId: system.systemId,
      timeline: system.timeline,
      confirmedLsn: slot.confirmedLsn,
      recentCommits: [],
    });
    await state.release();
  } finally {
    await disconnect(client);
  }
}

/** Drops slot and publication. */
export async function dropTraces(
  connection: PostgresConnectionOptions,
  { source }: LogPipeline,
): Promise<void> {
  const client = await connect(connection);
  try {
    await client.query(
      "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
      [source.slot],
    );
    await client.query(`DROP PUBLICATION IF EXISTS ${client.escapeIdentifier(source.publication)}`);
  } finally {
    await disconnect(client);
  }
}
