import { beginEpoch } from "../../admin/begin-epoch.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import { readCaptureRecord } from "../../state/capture-record.ts";
import type { LocalAws } from "../host.ts";
import { type DevDatabase, hasSlot } from "./database.ts";
import { DevStateOtherError } from "./dev-errors.ts";
import type { StateDirectory } from "./state-directory.ts";

/** After this silence a run that was killed has no lease any more. */
export const DEV_LEASE_MS = 5_000;

/**
 * Sees that the slot has what the state says: where we have dropped it ourselves a new epoch begins, and where it is gone
 * otherwise nothing goes on in silence. Gives whether a new epoch has begun.
 * @throws DevStateOtherError
 */
export async function continueHistory(
  directory: StateDirectory,
  definition: LogPipeline,
  database: DevDatabase,
  aws: LocalAws,
  signal: AbortSignal,
): Promise<boolean> {
  const { dynamodb } = aws.clients;
  const { stateTable } = aws.resources;
  const { slot } = await readCaptureRecord({
    dynamodb,
    table: stateTable,
    pipeline: definition.name,
    signal,
  });
  const { connection } = database;
  const isThere = slot !== undefined && (await hasSlot(connection, slot.slot, signal));
  // Dropped was meant: where it could not be, the slot has kept everything, and nothing is lost by going on.
  if (slot && !isThere && directory.state.slotDropped) {
    const log = () => {};
    const options = { dynamodb, stateTable, connection, dropSlot: true, leaseMs: DEV_LEASE_MS, signal, log };
    await beginEpoch({ ...options, pipeline: definition });
    await directory.update({ slotDropped: false });
    return true;
  }
  if (directory.state.slotDropped) await directory.update({ slotDropped: false });
  if (slot && !isThere) {
    throw new DevStateOtherError({
      message: `the replication slot "${slot.slot}" is gone from ${database.place}: changes since the last run are not in its log any more`,
      remedy:
        "tributary dev --fresh begins anew with what changes from now on (and --snapshot reads the existing rows).",
    });
  }
  return false;
}
