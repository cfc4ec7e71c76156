import type pg from "pg";
import { quoteIdentifier } from "../change/sql-identifier.ts";
import type { Log } from "../log.ts";
import { readPublication } from "../source/postgres/catalog/publication.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import { slotInUse } from "../source/postgres/link/replication-errors.ts";
import { readServerVersion } from "../source/postgres/preflight/server-facts.ts";
import { dropSlot, isOurs, readSlot } from "../source/postgres/slot/slot.ts";
import { slotNames, slotNumbers } from "../source/postgres/slots/assignment.ts";
import { checkNoneArrives, checkRetirable, slotsToRetire } from "../source/postgres/slots/slot-count.ts";
import type { CapturePlace } from "../state/capture-item.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { CaptureState } from "../state/capture-state.ts";
import { DEFAULT_LEASE_MS } from "../state/lease.ts";
import type { CaptureOptions } from "./capture-options.ts";

/** A living capture task renews within a third of its lease: this much longer than a lease is enough to see it. */
const LEASE_MARGIN_MS = 5_000;

/**
 * Takes slots back that no table has moved to, as when the deploy that brought them is rolled back: drops them, so that they
 * hold back no WAL. Each is under its own lease until `writeSlots` has told the number that is left: without it no table moves,
 * and a task that waits for the lease then sees that its slot is no more.
 *
 * @throws SlotsReducedError where one has tables; CaptureLeaseHeldError, SlotInUseError while its task runs.
 */
export async function retireSlots(
  options: CaptureOptions,
  definition: LogPipeline,
  stored: number,
  writeSlots: (count: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { dynamodb, stateTable, leaseMs = DEFAULT_LEASE_MS, log } = options;
  const place = { dynamodb, table: stateTable, pipeline: definition.name, signal };
  const { slots: wanted } = definition.source;
  const arriving = await Promise.all(
    slotNumbers(definition).map(async (slot) => (await readCaptureRecord({ ...place, slot })).arriving),
  );
  checkNoneArrives(definition, stored, arriving);
  for (const slot of slotsToRetire(stored, wanted)) {
    const state = await CaptureState.take({
      ...place,
      slot,
      leaseMs,
      waitMs: leaseMs + LEASE_MARGIN_MS,
      log: (line) => log.info(line),
    });
    try {
      await retireSlot(options, definition, slot, stored, state, signal);
      await writeSlots(slot - 1);
    } finally {
      await state.release();
    }
  }
}

/**
 * Drops the slots that the record has retired, where the server still has them and they are ours, and then forgets them:
 * whoever is killed in between leaves them noted. Publications are left to the caller, who knows which are still used.
 * @throws SlotInUseError while somebody reads from one; it stays noted.
 */
export async function dropRetired(
  client: pg.Client,
  place: CapturePlace,
  state: CaptureState,
  log: Pick<Log, "warn">,
): Promise<void> {
  const { retired } = await readCaptureRecord(place);
  if (retired.length === 0) return;
  const { rows } = await client.query<{ database: string }>("SELECT current_database() AS database");
  const { database } = rows[0] as { database: string };
  for (const { slot: name } of retired) {
    const slot = await readSlot((sql) => client.query(sql), name);
    if (slot && isOurs(slot, database)) await dropSlot(client, slot);
    else if (slot) log.warn(`the slot "${name}" is not ours any more, and stays`);
  }
  await state.forgetRetired();
}

async function retireSlot(
  { connection, log, dynamodb, stateTable }: CaptureOptions,
  definition: LogPipeline,
  number: number,
  stored: number,
  state: CaptureState,
  signal: AbortSignal,
): Promise<void> {
  const names = slotNames(definition.source, number);
  const place = { dynamodb, table: stateTable, pipeline: definition.name, slot: number, signal };
  await withConnection(connection, { signal }, async (client) => {
    const { retired } = await readCaptureRecord(place);
    const publication = await readPublication(client, names.publication, await readServerVersion(client));
    checkRetirable(definition, stored, publication, retired.length > 0);
    const slot = await readSlot((sql) => client.query(sql), names.slot);
    if (slot?.activePid !== undefined) throw slotInUse(slot.name, slot.activePid, slot.holder);
    await state.forgetSlot();
    // Without a record of ours a slot of that name may be anyone's.
    await dropRetired(client, place, state, log);
    if (publication?.ours)
      await client.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(publication.name)}`);
    log.warn(`slot ${number} is given up: it had no tables, and source.slots does not name it any more`);
  });
}
