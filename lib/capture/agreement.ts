import { formatPosition, type PositionText, START_OF_HISTORY } from "../change/position.ts";
import type { TableName } from "../change/table-pattern.ts";
import { highestEpoch } from "../consume/run/highest-epoch.ts";
import type { Pipeline } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import { sourceKind } from "../source/index.ts";
import type { ReadingState } from "../source/reading-record.ts";
import { type CaptureRecord, readCaptureRecord } from "../state/capture-record.ts";
import { mergeSettings, type StoredSettings, settingsOf, storedBySlots } from "../state/settings.ts";
import { StateLostError, StoredSettingChangedError } from "../state/state-errors.ts";
import type { CaptureOptions } from "./capture-options.ts";

/*
 * What a capture task finds out before it writes its first record. Nothing here writes: `tributary plan` asks the same.
 */

/** The pipeline, its state table, and the slot whose task asks. */
export type AgreementPlace = Pick<CaptureOptions, "pipeline" | "dynamodb" | "stateTable" | "slot">;

/** Reads the records of all slots: one of them may have a table now that another one had. */
export async function recordsOfSlots(
  { pipeline, dynamodb, stateTable }: AgreementPlace,
  signal: AbortSignal,
): Promise<readonly CaptureRecord[]> {
  const { source, name } = pipeline;
  const place = { dynamodb, table: stateTable, pipeline: name, signal };
  const numbers = sourceKind(source).tasks(source);
  return await Promise.all(numbers.map((slot) => readCaptureRecord({ ...place, slot })));
}

/**
 * Returns the settings that a task stores when it starts with these tables; `records`: those of all slots.
 * @throws StoredSettingChangedError naming every setting that differs from what is stored.
 */
export function settingsAtStart(
  pipeline: Pipeline,
  own: Pick<CaptureRecord, "settings">,
  records: readonly Pick<CaptureRecord, "settings">[],
  tables: readonly TableName[],
): StoredSettings {
  const { source } = pipeline;
  const now = settingsOf(sourceKind(source).settings(source), routeTables(pipeline), tables);
  return mergeSettings(pipeline.name, storedBySlots(own.settings, records, now), now);
}

/**
 * Returns the start position of a consumer that is new now.
 * @throws StateLostError where consumers have checkpoints and the capture task has no record.
 */
export async function startPositionNow(
  { pipeline: { name, consumers }, slot = 1, dynamodb, stateTable }: AgreementPlace,
  own: CaptureRecord,
  records: readonly CaptureRecord[],
  signal: AbortSignal,
): Promise<PositionText> {
  if (own.slot || own.reading || slot !== 1) {
    // The slot that is least far: what another one has not written yet is a new consumer's business too.
    const known = records.flatMap((record) => record.slot ?? record.reading ?? []);
    const startPositions = known.map(({ epoch, confirmedLsn }) =>
      formatPosition({ epoch, commitLsn: confirmedLsn, ordinal: 0 }),
    );
    return startPositions.sort()[0] ?? START_OF_HISTORY;
  }
  if (own.newEpoch) return formatPosition({ epoch: own.newEpoch.epoch, commitLsn: 0n, ordinal: 0 });
  const highest = await highestEpoch(dynamodb, stateTable, name, consumers, signal);
  if (highest > 0) throw new StateLostError(name, highest);
  return START_OF_HISTORY;
}

/**
 * Returns the start position of a consumer that is new now, where lanes are read: above every position that was published, since lanes number
 * their batches from their generation on.
 * @throws StateLostError where consumers have checkpoints and the capture task has no record.
 */
export async function lanesStartPosition(
  { pipeline: { name, consumers }, dynamodb, stateTable }: AgreementPlace,
  { reading, newEpoch }: Pick<CaptureRecord, "reading" | "newEpoch">,
  generation: number,
  signal: AbortSignal,
): Promise<PositionText> {
  if (!reading && !newEpoch) {
    const highest = await highestEpoch(dynamodb, stateTable, name, consumers, signal);
    if (highest > 0) throw new StateLostError(name, highest);
    return START_OF_HISTORY;
  }
  const commitLsn = reading ? BigInt(generation) << 32n : 0n;
  return formatPosition({ epoch: reading?.epoch ?? newEpoch?.epoch ?? 1, commitLsn, ordinal: 0 });
}

/** Checks that lanes are read in the database that they were read in before. @throws StoredSettingChangedError */
export function checkLanesDatabase(
  pipeline: string,
  reading: Pick<ReadingState, "database"> | undefined,
  database: string,
): void {
  if (!reading || reading.database === database) return;
  const change = { setting: "database", stored: reading.database, now: database };
  throw new StoredSettingChangedError(pipeline, [change]);
}
