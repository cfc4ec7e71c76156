import type { PartitionName } from "../consume/consume-errors.ts";
import { Checkpoint } from "../consume/fence/checkpoint.ts";
import { type ConsumerPlace, ConsumerTable } from "../consume/fence/consumer-table.ts";
import { type Acceptance, type MissingChanges, MissingTable } from "../consume/run/missing-changes.ts";
import { type Backfill, hasEnded, readBackfill, requestBackfill } from "../state/backfills.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { BackfillActiveError } from "../state/state-errors.ts";
import { consumerStatus } from "./consumer-status.ts";
import { withPartition } from "./owned-partition.ts";

/** Wait for invocations at work, in all partitions together: one may have died there. */
const INVOCATION_PATIENCE_MS = 15_000;

/** The missing changes to accept, and the backfills that replace them. */
export interface AcceptancePlan {
  readonly missing: readonly MissingChanges[];
  /** The tables of the topic: each is read again as a whole, for this consumer alone. */
  readonly tables: readonly string[];
  /**
   * Partitions that have not come to such a change yet, where records of all of them may have expired: what may be missing in
   * them is accepted with the rest, since the same backfill brings it.
   */
  readonly others: readonly PartitionName[];
}

/** The topic, or the one partition of it, whose missing changes are to be accepted. */
export interface AcceptanceScope {
  readonly topic: string;
  /** Undefined: in all partitions. */
  readonly partition?: number | undefined;
  /** Number of partitions of the topic. */
  readonly partitions?: number | undefined;
}

/** The outcome for one stretch of missing changes. */
export interface Accepted extends PartitionName {
  readonly missing: MissingChanges;
  /** `passed`: the partition stands before the next change and goes on. `came`: it did come after all; nothing was done. */
  readonly outcome: "passed" | "noted" | "came";
}

/** Returns what a consumer still lacks in a topic, or in one partition of it, and the tables to read again. Only reads. */
export async function planAcceptance(
  place: ConsumerPlace,
  { topic, partition, partitions = 0 }: AcceptanceScope,
  tables: readonly string[],
  signal: AbortSignal,
): Promise<AcceptancePlan> {
  const found = (await consumerStatus(place, signal)).filter(
    (status) => status.topic === topic && (partition === undefined || status.partition === partition),
  );
  const missing = found.flatMap(({ gap, unhealed }) => [...(gap ? [gap] : []), ...unhealed]);
  const isWide = partition === undefined && missing.some(({ cause }) => cause === "expired");
  const known = new Set(missing.filter(({ cause }) => cause === "expired").map((entry) => entry.partition));
  const all = Array.from({ length: isWide ? partitions : 0 }, (_, i) => ({ topic, partition: i }));
  return { missing, tables, others: all.filter((other) => !known.has(other.partition)) };
}

/**
 * Accepts that changes are missing: asks for backfills of the topic's tables, for this consumer and with a sweep; notes who
 * accepted what; and lets each partition go on with the change that follows them. The consumer's rows are right again when
 * the backfills' ends have passed. May be repeated: it goes on where it broke off.
 *
 * @throws BackfillActiveError where another kind of backfill of a table is under way; nothing was accepted then.
 * @throws StateTableError, StateTableUnavailableError, FenceUnavailableError; StateItemError, ParkedKeysMissingError where
 *   what the state table holds of a partition is not to be built on.
 */
export async function acceptGap(
  place: ConsumerPlace,
  { missing, tables, others }: AcceptancePlan,
  by: string,
  signal: AbortSignal,
): Promise<Accepted[]> {
  const table = new ConsumerTable(place);
  const upTo = missing
    .map((entry) => entry.upTo)
    .sort()
    .at(-1);
  if (upTo === undefined) return [];
  const runs: Record<string, number> = {};
  for (const name of tables) runs[name] = await backfillOf({ ...place, signal }, name, place.consumer, upTo);
  const accepted: Acceptance = { by, at: new Date().toISOString(), tables: runs };
  const results: Accepted[] = [];
  const until = performance.now() + INVOCATION_PATIENCE_MS;
  for (const entry of missing) {
    const { topic, partition } = entry;
    // Noted first: a partition never goes on without a trace of why.
    await new MissingTable(table).accept(entry, accepted, signal);
    const outcome = entry.cause === "unreadable" ? "noted" : await letPass(table, entry, until, signal);
    results.push({ topic, partition, missing: { ...entry, accepted }, outcome });
  }
  for (const other of others)
    await letPass(table, { ...other, cause: "expired", upTo, writer: 0 }, until, signal);
  return results;
}

/** A backfill that brings all rows of a table as they are behind `upTo`: one that is under way, or a new one. */
async function backfillOf(store: StatePlace, table: string, consumer: string, upTo: string): Promise<number> {
  const heals = (backfill: Backfill | undefined): backfill is Backfill =>
    backfill !== undefined &&
    !hasEnded(backfill) &&
    backfill.wanted === "run" &&
    backfill.request.sweep &&
    (backfill.request.consumer ?? consumer) === consumer &&
    (backfill.progress === undefined || backfill.progress.startPosition >= upTo);
  const known = await readBackfill(store, table);
  if (heals(known)) return known.run;
  try {
    return await requestBackfill(store, table, { consumer, sweep: true, requestedAt: Date.now() });
  } catch (error) {
    const now = error instanceof BackfillActiveError ? await readBackfill(store, table) : undefined;
    if (heals(now)) return now.run;
    throw error;
  }
}

/** Takes the partition as an invocation does, so that none can overwrite what is written. */
async function letPass(
  table: ConsumerTable,
  {
    topic,
    partition,
    cause,
    upTo,
    writer,
  }: Pick<MissingChanges, "topic" | "partition" | "cause" | "upTo" | "writer">,
  until: number,
  signal: AbortSignal,
): Promise<Accepted["outcome"]> {
  const place = { topic, partition };
  return await withPartition(table, place, { act: "accept-gap", until, signal }, async (own) => {
    const { stored, startPosition, fence, group, token } = own;
    const checkpoint = new Checkpoint(stored, startPosition);
    const came = checkpoint.position >= upTo;
    // With the generation of the record behind the gap: what an older writer still has of it is dropped.
    if (cause === "expired") checkpoint.noteLost({ until: Date.now(), state: "settled" });
    else if (!came) checkpoint.explain(upTo, writer);
    const { parked, hold } = stored;
    const progress = { partition, ...checkpoint.value(undefined), parked };
    // What is held is tried by the next invocation, or redrive.
    const held = hold ? { ...progress, hold: { ...hold, nextTry: 0 } } : progress;
    const { lost, overtaken } = await fence.close(group, [{ progress: held, token }], signal);
    // Who has come as far in storing what it holds has not read what is written here.
    if (lost.length + overtaken.length > 0) return undefined;
    return came ? "came" : "passed";
  });
}
