import { setTimeout as sleep } from "node:timers/promises";
import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import { type MissingChanges, unhealedTables } from "../consume/run/missing-changes.ts";
import {
  type Backfill,
  hasEnded,
  readBackfill,
  readBackfills,
  requestBackfill,
  wantBackfill,
} from "../state/backfills.ts";
import { BackfillActiveError, BackfillNotActiveError } from "../state/state-errors.ts";
import { consumerStatus, needsAttention } from "./consumer-status.ts";
import { unhealedBy } from "./reset.ts";
import { ResetIncompleteError } from "./reset-errors.ts";
import { nameRun } from "./reset-note.ts";
import { type ResetRecord, readReset } from "./reset-record.ts";

const POLL_MS = 1_000;
/** Wait until all is asked for, at least: a backfill that began too early ends first. */
const ASKING_MS = 60_000;

/**
 * `healed`: the sink has all rows. `failed`: all were read, and the consumer needs attention in a topic that was reset: rows that failed
 * wait in its dead letters. `asked`: they come by themselves. `waiting`: a table is yet to be asked for, by a
 * repetition.
 */
export type ResetOutcome = "healed" | "failed" | "asked" | "waiting";

/** How far the rows of a reset are. */
export interface ResetProgress {
  /** Partitions that are not whole yet. */
  readonly partitions: number;
  readonly tables: readonly ResetTable[];
}

/** A table whose rows are not in place yet. */
export interface ResetTable {
  readonly table: string;
  /**
   * `drain`: an invocation from before may run. `busy`: another backfill of the table has to end first. `reading`: the rows are being
   * read. `applying`: all are in the stream, and the consumer has not come to the end.
   */
  readonly state: "drain" | "busy" | "reading" | "applying";
  /** Until when `drain` lasts, in milliseconds since 1970 UTC. */
  readonly until?: number;
  readonly backfill?: Backfill | undefined;
}

/** Options of `healReset`. */
export interface HealOptions {
  readonly signal: AbortSignal;
  /** How long the rows are waited for, in milliseconds; 0: not at all, once they are asked for. */
  readonly timeoutMs: number;
  readonly onProgress?: (progress: ResetProgress) => void;
  /** Default: 1 s. */
  readonly pollMs?: number;
}

/**
 * The second half of a reset (rule 63): asks for a backfill with a sweep of each table, for the consumer alone, once no invocation from
 * before can run any more; a backfill that began before the partitions were moved does not count. Waits until its end has passed in
 * each partition, or the time is over: the same call goes on with it.
 *
 * @throws ResetIncompleteError where such a backfill was refused or cancelled; StateTableError, StateTableUnavailableError,
 * FenceUnavailableError; the signal's reason.
 */
export async function healReset(
  place: ConsumerPlace,
  record: ResetRecord,
  { signal, timeoutMs, onProgress, pollMs = POLL_MS }: HealOptions,
): Promise<ResetOutcome> {
  const asked = new Map<string, number>();
  const began = performance.now();
  for (;;) {
    // In this order: the run that heals is named before it is asked for.
    const backfills = new Map((await readBackfills({ ...place, signal })).map((one) => [one.table, one]));
    // Another operator may have taken a partition since.
    const { drainUntil } = (await readReset(place, signal)) ?? record;
    const unhealed = await unhealedBy(place, record, signal);
    if (unhealed.length === 0) return (await hasFailed(place, record, signal)) ? "failed" : "healed";
    const tables: ResetTable[] = [];
    for (const [table, bound] of boundsOf(unhealed)) {
      const backfill = backfills.get(table);
      tables.push(await look(place, { table, backfill, ...bound, drainUntil, unhealed, asked, signal }));
    }
    onProgress?.({ partitions: partitionsOf(unhealed), tables });
    const waitedMs = performance.now() - began;
    const isAsked = tables.every(({ state }) => state === "reading" || state === "applying");
    if (isAsked && waitedMs >= timeoutMs) return "asked";
    const isDrained = tables.every(({ state }) => state !== "drain");
    if (isDrained && waitedMs >= Math.max(timeoutMs, ASKING_MS)) return "waiting";
    await sleep(pollMs, undefined, { signal });
  }
}

/** What a backfill must be to bring all rows as they are behind what was left out, and what is gone with it. */
interface Bound {
  /** It begins behind this position. */
  readonly upTo: string;
  /** It is this run of the table's, or a later one: rule 63. */
  readonly run: number;
}

/** The tables that are missing, and what each backfill must be. */
function boundsOf(unhealed: readonly MissingChanges[]): Map<string, Bound> {
  const bounds = new Map<string, Bound>();
  for (const entry of unhealed)
    for (const table of unhealedTables(entry)) {
      const { upTo, run } = bounds.get(table) ?? { upTo: "", run: 0 };
      bounds.set(table, {
        upTo: entry.upTo > upTo ? entry.upTo : upTo,
        run: Math.max(run, entry.accepted?.tables[table] ?? 0),
      });
    }
  return bounds;
}

/** Rows that were read may have failed: they wait in the dead letters, and are not in the sink. */
async function hasFailed(
  place: ConsumerPlace,
  { topics }: Pick<ResetRecord, "topics">,
  signal: AbortSignal,
): Promise<boolean> {
  const own = new Set(topics.map(({ topic }) => topic));
  return (await consumerStatus(place, signal)).some((each) => own.has(each.topic) && needsAttention(each));
}

function partitionsOf(unhealed: readonly MissingChanges[]): number {
  return new Set(unhealed.map(({ topic, partition }) => `${topic}/${partition}`)).size;
}

interface Look extends Bound {
  readonly table: string;
  readonly backfill: Backfill | undefined;
  readonly drainUntil: number;
  readonly unhealed: readonly MissingChanges[];
  /** The runs that this call has found or asked for. */
  readonly asked: Map<string, number>;
  readonly signal: AbortSignal;
}

/** Looks how a table's backfill stands, and does the next thing. */
async function look(place: ConsumerPlace, of: Look): Promise<ResetTable> {
  const { table, backfill, upTo, run, drainUntil, unhealed, asked, signal } = of;
  const store = { ...place, signal };
  const isUseful = backfill && backfill.run >= run && isWhole(backfill, place.consumer, { upTo, drainUntil });
  if (isUseful && backfill.status === "done") return { table, state: "applying", backfill };
  if (isUseful && !hasEnded(backfill) && backfill.wanted !== "cancel") {
    asked.set(table, backfill.run);
    return { table, state: "reading", backfill };
  }
  const isLost = backfill && hasEnded(backfill) && backfill.status !== "done";
  // Where it counts no more, another operator's reset has moved on.
  if (isLost && asked.get(table) === backfill.run && backfill.run >= run)
    throw new ResetIncompleteError(place.consumer, table, backfill.status, backfill.progress?.reason);
  if (drainUntil > Date.now()) return { table, state: "drain", until: drainUntil, backfill };
  if (backfill && !hasEnded(backfill)) {
    // One of ours that began too early is of no use any more; what others wait for goes on.
    const { consumer, sweep } = backfill.request;
    if (consumer === place.consumer && sweep && backfill.wanted !== "cancel")
      await wantBackfill(store, table, "cancel").catch(passing(BackfillNotActiveError));
    return { table, state: "busy", backfill };
  }
  await nameRun(place, unhealed, { table, run: (backfill?.run ?? 0) + 1 }, signal);
  const wish = { consumer: place.consumer, sweep: true, requestedAt: Date.now() };
  const next = await requestBackfill(store, table, wish).catch(passing(BackfillActiveError));
  if (next === undefined) return { table, state: "busy", backfill };
  asked.set(table, next);
  return { table, state: "reading", backfill: await readBackfill(store, table) };
}

/** Returns whether a backfill brings all rows as they are behind a position, and what is gone with it; none from before a time. */
export function isWhole(
  { request, progress }: Backfill,
  consumer: string,
  { upTo, drainUntil }: { readonly upTo: string; readonly drainUntil: number },
): boolean {
  const isOurs = (request.consumer ?? consumer) === consumer;
  if (!isOurs || !request.sweep) return false;
  // One that does not read yet may begin at once.
  if (progress === undefined) return drainUntil <= Date.now();
  return progress.startPosition >= upTo && progress.startedAt >= drainUntil;
}

/** Somebody else was faster: it is looked at again. */
function passing(kind: new (...args: never[]) => Error): (error: unknown) => undefined {
  return (error) => {
    if (error instanceof kind) return undefined;
    throw error;
  };
}
