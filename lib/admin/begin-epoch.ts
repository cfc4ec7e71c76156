import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { quoteIdentifier } from "../change/sql-identifier.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { highestEpoch } from "../consume/run/highest-epoch.ts";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import { readPublication } from "../source/postgres/catalog/publication.ts";
import type { LogSource } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { slotInUse } from "../source/postgres/link/replication-errors.ts";
import { SlotForeignError } from "../source/postgres/postgres-errors.ts";
import { readServerVersion } from "../source/postgres/preflight/server-facts.ts";
import { checkOurs, readSlot, type SlotFacts } from "../source/postgres/slot/slot.ts";
import { slotNames } from "../source/postgres/slots/assignment.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { CaptureState } from "../state/capture-state.ts";
import type { StoredSettings } from "../state/settings.ts";

/** Settings of a new epoch. */
export interface EpochOptions {
  readonly pipeline: Pipeline;
  readonly connection: PostgresConnectionOptions;
  readonly dynamodb: DynamoDBClient;
  readonly stateTable: string;
  /** Drop the pipeline's old slot. */
  readonly dropSlot: boolean;
  /** An epoch that was used for certain, where the state table may have forgotten. */
  readonly above?: number | undefined;
  /** The capture tasks' own, or a living one would be taken for dead. */
  readonly leaseMs: number;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

/** Steps that a new epoch takes. */
export interface EpochPlan {
  /** The highest epoch known so far. */
  readonly from: number;
  readonly to: number;
  /** Confirmed position of the old epoch, as far as its record tells. */
  readonly endedAt: bigint | undefined;
  /** The old slot, where it is on this server. */
  readonly oldSlot: SlotFacts | undefined;
  readonly settings: StoredSettings | undefined;
  /** The other slots, if there were or will be several. */
  readonly further: readonly FurtherSlot[];
}

/** A slot beside the first. */
export interface FurtherSlot {
  readonly number: number;
  readonly oldSlot: SlotFacts | undefined;
  /** Its publication, where the definition has no such slot any more and the publication is there. */
  readonly leftPublication: string | undefined;
}

/** A living capture task renews within a third of its lease: this much longer than a lease is enough to see it. */
const LEASE_MARGIN_MS = 5_000;
const LAST_EPOCH = 0xffff_ffff;

/**
 * Plans a new epoch without changing anything.
 *
 * The new epoch is above every one that the record, an earlier `epoch new`, a consumer's checkpoint or `above` knows of: it never
 * goes backwards, even where the record was lost or is older than the checkpoints.
 *
 * @throws ConfigurationError where more must be said first; StateTableError, the errors of `connect`.
 */
export async function planEpoch(options: EpochOptions): Promise<EpochPlan> {
  const { pipeline, dynamodb, stateTable, above = 0, dropSlot, signal } = options;
  const { source, name, consumers } = pipeline;
  if (!Number.isSafeInteger(above) || above < 0)
    throw refused("--above", above, `write a whole number below ${LAST_EPOCH}`);
  const record = await readCaptureRecord({ dynamodb, table: stateTable, pipeline: name, signal });
  const ofConsumers = await highestEpoch(dynamodb, stateTable, name, consumers, signal);
  const from = Math.max(
    record.slot?.epoch ?? 0,
    record.reading?.epoch ?? 0,
    record.newEpoch?.epoch ?? 0,
    ofConsumers,
    above,
  );
  if (from === 0) {
    throw refused(
      "--above",
      options.above,
      `the state table "${stateTable}" knows nothing of the pipeline "${name}". One that never ran is simply started. Where the table was lost, give the highest epoch that was ever used (source.epoch of the latest events; 1 where none was begun by hand)`,
    );
  }
  if (from >= LAST_EPOCH) throw refused("--above", from, `write a number below ${LAST_EPOCH}`);
  // A pipeline may come from another kind of source, or go to one: only the log has slots.
  const nextName = sourceOfSlots(pipeline)?.slot;
  const [retired] = record.retired;
  const oldName = record.slot?.slot ?? retired?.slot ?? record.settings?.slot ?? nextName;
  const [found, nextSlot] = await slotsOf(options, oldName, nextName);
  // Another's of the same name may stay, where we do not need the name.
  const oldSlot = found && (await isOurs(options, found, oldName === nextName)) ? found : undefined;
  if (oldSlot && oldName === nextName && !dropSlot) {
    throw refused(
      "--drop-slot",
      undefined,
      `the old slot "${oldName}" is still there: give the option to drop it (what it still holds is lost), or name another one in source.slot`,
    );
  }
  if (nextSlot && oldName !== nextName && !nextSlot.unused) {
    throw refused("source.slot", nextName, "it exists and was read from: name one that does not exist");
  }
  const further = await furtherSlots(options, record.slots);
  const { beside: _, ...names } = sourceKind(source).settings(source);
  const settings = record.settings && { ...record.settings, ...names };
  const endedAt = record.slot?.confirmedLsn ?? record.reading?.confirmedLsn ?? record.newEpoch?.endedAt;
  return { from, to: from + 1, endedAt, oldSlot, settings, further };
}

/**
 * Begins a new epoch: the pipeline's record forgets its slot, and the next start makes a new one, whose positions are above
 * all that were before. Holds the capture lease meanwhile.
 *
 * @throws CaptureLeaseHeldError while a capture task runs, SlotInUseError while someone reads from the slot that is to be
 * dropped, and what `planEpoch` throws; nothing was changed then.
 */
export async function beginEpoch(options: EpochOptions): Promise<EpochPlan> {
  await using held = new AsyncDisposableStack();
  const state = await take(options, 1);
  held.defer(() => state.release());
  const { further: known } = await planEpoch(options);
  const others = new Map<number, CaptureState>();
  for (const { number } of known) {
    const other = await take(options, number);
    held.defer(() => other.release());
    others.set(number, other);
  }
  const plan = await planEpoch(options);
  const drops = [plan, ...plan.further].flatMap(({ oldSlot }) =>
    oldSlot && options.dropSlot ? [oldSlot] : [],
  );
  for (const { name, activePid, holder } of drops)
    if (activePid !== undefined) throw slotInUse(name, activePid, holder);
  // The first slot's record before the others': one that is still of the old epoch is refused beside it, and none goes
  // on in the old epoch with a new slot.
  const slots = sourceOfSlots(options.pipeline)?.slots ?? 1;
  // What is to be dropped stays noted until the server has dropped it, and so does the number of slots.
  const counted = Math.max(slots, ...others.keys());
  const retired = plan.oldSlot && options.dropSlot ? [{ slot: plan.oldSlot.name, publication: "" }] : [];
  await state.beginEpoch({ epoch: plan.to, endedAt: plan.endedAt }, plan.settings, counted, retired);
  for (const other of others.values()) await other.forgetSlot();
  for (const { name } of drops) await atServer(options, "SELECT pg_drop_replication_slot($1)", [name]);
  for (const { leftPublication: name } of plan.further)
    if (name !== undefined) await atServer(options, `DROP PUBLICATION ${quoteIdentifier(name)}`);
  for (const held of [state, ...others.values()]) await held.forgetRetired();
  if (counted !== slots) await state.writeSlots(slots);
  return plan;
}

/** Returns the log's part of the definition, or undefined for a kind of source without slots. */
function sourceOfSlots(pipeline: Pipeline): LogSource | undefined {
  return sourceKind(pipeline.source).throughSlots?.(pipeline).source;
}

async function take(options: EpochOptions, slot: number): Promise<CaptureState> {
  const { pipeline, dynamodb, stateTable, leaseMs, signal, log } = options;
  return await CaptureState.take({
    dynamodb,
    table: stateTable,
    pipeline: pipeline.name,
    slot,
    leaseMs,
    waitMs: leaseMs + LEASE_MARGIN_MS,
    // Consumers drop what a writer below the newest one writes (rule 8). A table that was lost or restored may have
    // forgotten the newest; no sequence of single steps comes near the clock's seconds.
    ...(slot === 1 ? { generationAtLeast: Math.floor(Date.now() / 1000) } : {}),
    signal,
    log,
  });
}

/** @throws ConfigurationError where more must be said first. */
async function furtherSlots(options: EpochOptions, stored: number): Promise<readonly FurtherSlot[]> {
  const { pipeline, connection, dynamodb, stateTable, dropSlot, signal } = options;
  const { name } = pipeline;
  const source = sourceOfSlots(pipeline);
  const wanted = source?.slots ?? 1;
  const all: FurtherSlot[] = [];
  if (Math.max(stored, wanted) === 1) return all;
  return await withConnection(connection, { signal }, async (client) => {
    for (let number = 2; number <= Math.max(stored, wanted); number++) {
      const place = { dynamodb, table: stateTable, pipeline: name, slot: number, signal };
      const record = await readCaptureRecord(place);
      const names = source && slotNames(source, number);
      const [retired] = record.retired;
      const slot = record.slot?.slot ?? retired?.slot ?? record.settings?.slot ?? names?.slot;
      const publication =
        record.slot?.publication ??
        retired?.publication ??
        record.settings?.publication ??
        names?.publication;
      const found = slot === undefined ? undefined : await readSlot((sql) => client.query(sql), slot);
      const needed = slot === names?.slot && number <= wanted;
      const oldSlot = found && (await isOurs(options, found, needed)) ? found : undefined;
      if (oldSlot && !dropSlot && (slot === names?.slot || number > wanted)) {
        throw refused(
          "--drop-slot",
          undefined,
          `the old slot "${slot}" is still there: give the option to drop it (what it still holds is lost)`,
        );
      }
      const left = publication !== undefined && number > wanted ? publication : undefined;
      const facts = left && (await readPublication(client, left, await readServerVersion(client)));
      if (facts && !facts.ours) {
        throw refused(
          "source.slots",
          wanted,
          `drop the publication "${left}" first: it is that of slot ${number}, and we did not make it`,
        );
      }
      all.push({ number, oldSlot, leftPublication: facts ? left : undefined });
    }
    return all;
  });
}

async function slotsOf(
  { connection, signal }: EpochOptions,
  ...names: (string | undefined)[]
): Promise<(SlotFacts | undefined)[]> {
  return await withConnection(connection, { signal }, async (client) => {
    const found: (SlotFacts | undefined)[] = [];
    for (const name of names)
      found.push(name === undefined ? undefined : await readSlot((sql) => client.query(sql), name));
    return found;
  });
}

/** Returns true if a slot is ours to drop. @throws SlotForeignError where it is not, and its name is `needed`. */
async function isOurs(
  { connection, dropSlot, signal }: EpochOptions,
  slot: SlotFacts,
  needed: boolean,
): Promise<boolean> {
  return await withConnection(connection, { signal }, async (client) => {
    const { rows } = await client.query<{ database: string }>("SELECT current_database() AS database");
    checkOurs(slot, (rows[0] as { database: string }).database);
    return true;
  }).catch((error) => {
    if (!(error instanceof SlotForeignError)) throw error;
    if (needed && dropSlot) throw error;
    return needed;
  });
}

async function atServer(
  { connection, signal }: EpochOptions,
  sql: string,
  values: readonly string[] = [],
): Promise<void> {
  await withConnection(connection, { signal }, async (client) => {
    await client.query(sql, [...values]);
  });
}

function refused(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("The new epoch", [{ path, value, remedy }]);
}
