import { setTimeout as sleep } from "node:timers/promises";
import { formatPosition, type PositionText, START_OF_HISTORY } from "../change/position.ts";
import { runSideBySide } from "../consume/api/concurrency.ts";
import { type PartitionName, StateItemError } from "../consume/consume-errors.ts";
import { RedriveLeases } from "../consume/dead-letter/redrive-lease.ts";
import { Checkpoint } from "../consume/fence/checkpoint.ts";
import { type ConsumerPlace, ConsumerTable } from "../consume/fence/consumer-table.ts";
import { REDRIVE, readLease } from "../consume/fence/partition-lease.ts";
import { heldBy } from "../consume/hold/hold.ts";
import { ParkedChains } from "../consume/hold/parked-chains.ts";
import { ParkedKeys } from "../consume/hold/parked-keys.ts";
import { isHealed, type MissingChanges, MissingTable } from "../consume/run/missing-changes.ts";
import { failpoint } from "../failpoint.ts";
import { number, readItem } from "../state/capture-item.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { type OwnedPartition, withPartition } from "./owned-partition.ts";
import { NO_RUN, noteReset } from "./reset-note.ts";
import { beginReset, endPartitions, noteDrain, type ResetRecord, readReset } from "./reset-record.ts";

/** Wait for invocations at work, in all partitions together; then partitions are taken from them. */
const INVOCATION_PATIENCE_MS = 15_000;
/** An invocation's own end may come a little late, and its clock may differ. */
const MARGIN_MS = 10_000;
/** Lambda ends a redrive, as any invocation, after so long. */
const LONGEST_INVOCATION_MS = 15 * 60_000;
/** Tokens and leases of redrives. */
const REDRIVES = /(^|:)redrive-/;
const PARTITIONS_AT_ONCE = 8;
const REDRIVE_POLL_MS = 500;

/** What a reset tells of its course. */
export type ResetStep =
  | { readonly kind: "partitions"; readonly done: number; readonly of: number }
  /** It waits, in a sentence for people. */
  | { readonly kind: "waits"; readonly reason: string };

/** Options of `resetPartitions`. */
export interface ResetOptions {
  /** Who resets it: status shows that. */
  readonly by: string;
  /** How long an invocation of the consumer may run, in milliseconds: its definition's `timeoutSeconds`. */
  readonly invocationMs: number;
  /** Default: 15 s. */
  readonly patienceMs?: number;
  readonly signal: AbortSignal;
  readonly onStep?: (step: ResetStep) => void;
}

/** The position from which a consumer goes on, and the oldest capture task that may still write behind it. */
interface NewStart {
  readonly position: PositionText;
  readonly writer: number;
}

/**
 * The first half of a reset: moves each partition to a new start position, behind everything that the consumer has met, and clears what
 * is parked, held or missing before it (rule 63). Nothing of this is lost: each partition shows as unhealed until a backfill that began
 * later, with a sweep, has passed in it, which `healReset` asks for. May be repeated and interrupted, and two may do it at once. `seen`:
 * the reset that is gone on with, or the one before, which has ended.
 *
 * @throws what `withPartition` throws; StateTableError, StateTableUnavailableError; the signal's reason.
 */
export async function resetPartitions(
  place: ConsumerPlace,
  wish: {
    readonly topics: ResetRecord["topics"];
    /** The one topic that was asked for. */
    readonly only?: string | undefined;
    readonly seen: ResetRecord | undefined;
    readonly goesOn: boolean;
  },
  options: ResetOptions,
): Promise<ResetRecord> {
  const { by, signal, onStep, patienceMs = INVOCATION_PATIENCE_MS } = options;
  const record =
    wish.goesOn && wish.seen
      ? wish.seen
      : await beginReset(place, wish.seen, { by, topics: wish.topics, only: wish.only }, signal);
  if (record.phase === "backfills") return record;
  const start = await newStart({ ...place, signal });
  const partitions = record.topics.flatMap(({ topic, partitions, tables }) =>
    Array.from({ length: partitions }, (_, partition) => ({ topic, partition, tables })),
  );
  const until = performance.now() + patienceMs;
  const moved: Moved[] = [];
  await runSideBySide(partitions, PARTITIONS_AT_ONCE, async (partition) => {
    moved.push(await resetPartition(place, partition, { record, start, until, options }));
    onStep?.({ kind: "partitions", done: moved.length, of: partitions.length });
  });
  failpoint("reset-moved");
  await supersedeLetters(place, moved, signal);
  return await endPartitions(place, record, signal);
}

/** A partition that begins anew. */
interface Moved extends PartitionName {
  /** Its new start position. */
  readonly upTo: PositionText;
}

interface PartitionReset {
  readonly record: ResetRecord;
  readonly start: NewStart;
  readonly until: number;
  readonly options: ResetOptions;
}

async function resetPartition(
  place: ConsumerPlace,
  { topic, partition, tables }: PartitionName & { readonly tables: readonly string[] },
  { record, start, until, options }: PartitionReset,
): Promise<Moved> {
  const { signal, onStep, invocationMs } = options;
  const table = new ConsumerTable(place);
  const name = { topic, partition };
  const taking = async (from: string) => {
    const longestMs = REDRIVES.test(from) ? LONGEST_INVOCATION_MS : invocationMs;
    await noteDrain(place, Date.now() + longestMs + MARGIN_MS, signal);
  };
  return await withPartition(table, name, { act: "reset", until, signal, taking }, async (own) => {
    const { stored, fence, group, token } = own;
    const checkpoint = new Checkpoint(stored, own.startPosition);
    const open = (await new MissingTable(table).list(signal, name)).filter((entry) => !isHealed(entry));
    const upTo = newest(start.position, checkpoint, stored.hold?.intake.position, open);
    // Noted first: a partition never goes on without a trace of what brings its rows (rule 38).
    await noteReset(
      table,
      { ...name, upTo, behind: checkpoint.position, writer: start.writer },
      open,
      {
        by: record.by,
        at: record.at,
        tables: Object.fromEntries(tables.map((each) => [each, NO_RUN])),
      },
      signal,
    );
    failpoint("reset-noted");
    checkpoint.reach(upTo, start.writer);
    checkpoint.noteLost({ until: Date.now(), state: "settled" });
    const progress = progressOf(own, partition, checkpoint, upTo);
    // Before anything is overwritten that tells of it.
    const running = stored.attempts?.running?.until ?? 0;
    if (running > Date.now()) await noteDrain(place, running, signal);
    const keys = ParkedKeys.parse(stored.parked);
    if (keys.size > 0) {
      // Where this dies before they are superseded, nobody is to take their changes for done (rule 17).
      const parking = new ParkedChains(table);
      for (const { chain } of keys.values()) await parking.overtaken({ ...name, chain }, signal);
      // A redrive at work on one of the keys would bring its old change behind this. Of one that died, or is frozen, its lease tells.
      const lease = new RedriveLeases(table).item(topic, partition, signal);
      const { name: redrive, end } = readLease(await lease.read(), REDRIVE, partition);
      const redriven = redrive === undefined ? 0 : end + LONGEST_INVOCATION_MS;
      if (redriven > Date.now()) await noteDrain(place, redriven, signal);
      const outcome = await fence.overtake(group, { progress, token }, signal);
      if (outcome === "redriven") {
        await fence.giveBack(group, partition, token, signal);
        onStep?.({ kind: "waits", reason: `a redrive at work in ${topic}/${partition}` });
        await sleep(REDRIVE_POLL_MS, undefined, { signal });
      }
      if (outcome !== "ours") return undefined;
    }
    const { lost, overtaken } = await fence.close(group, [{ progress, token }], signal);
    if (lost.length + overtaken.length > 0) return undefined;
    return { ...name, upTo };
  });
}

/**
 * The position behind everything that the partition has met: what has taken effect, is parked, held, in the dead letters or missing. Each
 * of these stood in the stream by now, so a backfill that begins later reads rows as they are behind it.
 */
function newest(
  start: PositionText,
  { position, explained = "" }: Checkpoint,
  held: PositionText = "",
  open: readonly MissingChanges[],
): PositionText {
  return [start, position, explained, held, ...open.map(({ upTo }) => upTo)].sort().at(-1) as PositionText;
}

/**
 * As the fence is to hold it. What is held stays where it is and is passed by when the consumer goes on: there may be records of a newer
 * format among it, of which nobody here knows the position.
 */
function progressOf(
  { stored }: OwnedPartition,
  partition: number,
  checkpoint: Checkpoint,
  upTo: PositionText,
) {
  const { hold } = stored;
  const parked = stored.parked === undefined ? undefined : "";
  const progress = { partition, ...checkpoint.value(undefined), parked };
  if (!hold) return progress;
  const { position, writer } = hold.intake;
  const intake = {
    position: position > upTo ? position : upTo,
    writer: Math.max(writer, checkpoint.writer),
  };
  return { ...progress, hold: { ...hold, intake, expired: undefined, tries: 0, nextTry: 0 } };
}

/** Dead letters of what lies behind the new start positions are open no more, also those that a process left which died. */
async function supersedeLetters(
  place: ConsumerPlace,
  moved: readonly Moved[],
  signal: AbortSignal,
): Promise<void> {
  const parking = new ParkedChains(new ConsumerTable(place));
  const starts = new Map(moved.map(({ topic, partition, upTo }) => [`${topic}/${partition}`, upTo]));
  for await (const letter of parking.deadLetters(signal)) {
    if (letter instanceof StateItemError || letter.superseded) continue;
    const { topic, partition, chain, position } = letter;
    const upTo = starts.get(`${topic}/${partition}`);
    // That of a hold goes with it.
    if (upTo === undefined || position > upTo || heldBy(chain) !== undefined) continue;
    await parking.supersede({ topic, partition, chain }, signal);
  }
}

/**
 * Where a consumer begins that is new now: at what is confirmed, of several slots the least; and the oldest task that writes behind that.
 */
async function newStart(place: StatePlace): Promise<NewStart> {
  const { slots } = await readCaptureRecord(place);
  const each = await Promise.all(
    Array.from({ length: slots }, async (_, i) => {
      const slot = { ...place, slot: i + 1 };
      // In this order: of a task that takes over between the two, everything counts.
      const generation = number((await readItem(slot))?.generation);
      return { at: (await readCaptureRecord(slot)).slot, generation };
    }),
  );
  const positions = each.map(({ at }) =>
    at ? formatPosition({ epoch: at.epoch, commitLsn: at.confirmedLsn, ordinal: 0 }) : START_OF_HISTORY,
  );
  return {
    position: positions.sort()[0] ?? START_OF_HISTORY,
    writer: Math.min(...each.map(({ generation }) => generation)),
  };
}

/** The reset of a consumer that has not ended, if there is one. @throws StateTableError, StateTableUnavailableError, FenceUnavailableError */
export async function openReset(
  place: ConsumerPlace,
  signal: AbortSignal,
): Promise<{ readonly last: ResetRecord | undefined; readonly isOpen: boolean }> {
  const last = await readReset(place, signal);
  if (!last) return { last, isOpen: false };
  const isOpen = last.phase === "partitions" || (await unhealedBy(place, last, signal)).length > 0;
  return { last, isOpen };
}

/**
 * Returns the entries of a reset that are not healed, and in its topics those of a reset that it has replaced: that one may have noted a partition
 * after this one did, over its entry, and nobody else heals that.
 * @throws FenceUnavailableError, StateItemError
 */
export async function unhealedBy(
  place: ConsumerPlace,
  { at, topics }: Pick<ResetRecord, "at" | "topics">,
  signal: AbortSignal,
): Promise<MissingChanges[]> {
  const all = await new MissingTable(new ConsumerTable(place)).list(signal);
  const own = new Set(topics.map(({ topic }) => topic));
  const isOf = ({ accepted, cause, topic }: MissingChanges) =>
    accepted?.at === at || (cause === "reset" && own.has(topic));
  return all.filter((entry) => isOf(entry) && !isHealed(entry));
}
