import { setTimeout as sleep } from "node:timers/promises";
import { readLease } from "../state/capture-liveness.ts";
import { type CaptureFigures, type CaptureReport, readCaptureReports } from "../state/capture-report.ts";
import { DEFAULT_LEASE_MS } from "../state/lease.ts";
import { clearPause, type Pause, setPause } from "../state/pauses.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import type { PauseRequest } from "./pause-consumer.ts";

/** How a capture task stands after a pause. */
export interface TaskAtRest {
  readonly slot: number;
  /**
   * `PAUSED`: it stands still. Undefined: there is no task of this slot; one that starts stands still at once. Else it has not come to rest
   * in time; `UNREPORTED`: a task that says nothing of itself holds the lease, and may be of a version that knows no pause.
   */
  readonly state: CaptureReport["state"] | "UNREPORTED" | undefined;
  /** What the server keeps for it, as it reported. */
  readonly figures: CaptureFigures | undefined;
}

const POLL_MS = 500;
/** Reports that may be missed before a task counts as gone. */
const MISSED = 3;

/**
 * Pauses capture, with all its slots or lanes: each task gives what it has read, lets go of its slot and its lease, and stands still until
 * capture is resumed, over restarts and deploys. Returns at once; `captureAtRest` waits for the tasks.
 * @throws PausedAlreadyError, which tells who was first; StateTableError, StateTableUnavailableError
 */
export async function pauseCapture(place: StatePlace, { by, reason }: PauseRequest): Promise<Pause> {
  return await setPause(place, "capture", { by, reason, since: Date.now() });
}

/** Lets capture go on where it stopped, within 5 s. @throws NotPausedError, StateTableError, StateTableUnavailableError */
export async function resumeCapture(place: StatePlace): Promise<Pause> {
  return await clearPause(place, "capture");
}

/**
 * Waits until the tasks of all slots stand still, at most `timeoutMs`, and returns how they stand.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function captureAtRest(
  place: StatePlace,
  slots: readonly number[],
  timeoutMs: number,
): Promise<readonly TaskAtRest[]> {
  const until = performance.now() + timeoutMs;
  const leases = new Map<number, LeaseSeen>();
  for (;;) {
    const tasks = await tasksOf(place, slots, leases);
    const isAtRest = tasks.every(({ state }) => state === undefined || state === "PAUSED");
    if (isAtRest || performance.now() >= until) return tasks;
    await sleep(POLL_MS, undefined, { signal: place.signal });
  }
}

/** A lease as it was seen last. */
interface LeaseSeen {
  readonly renewal: string;
  /** Since when it was not renewed, by the monotonic clock. */
  readonly since: number;
}

async function tasksOf(
  place: StatePlace,
  slots: readonly number[],
  leases: Map<number, LeaseSeen>,
): Promise<readonly TaskAtRest[]> {
  const reports = await readCaptureReports(place);
  return await Promise.all(
    slots.map(async (slot) => {
      const alive = reports.flatMap(({ slot: of, report }) =>
        of === slot && report && isAlive(report) ? report : [],
      );
      // One that goes on counts, however many stand still.
      const shown = alive.find(({ state }) => state !== "PAUSED") ?? alive[0];
      if (shown) return { slot, state: shown.state, figures: shown.figures };
      const state = (await isLeased(place, slot, leases)) ? "UNREPORTED" : undefined;
      return { slot, state, figures: undefined };
    }),
  );
}

/** Returns whether somebody may still hold the lease of a slot: until it was seen not to be renewed for all of its time. */
async function isLeased(place: StatePlace, slot: number, leases: Map<number, LeaseSeen>): Promise<boolean> {
  const lease = await readLease({ ...place, slot });
  if (lease?.owner === undefined) return false;
  const now = performance.now();
  const renewal = `${lease.owner} ${lease.generation} ${lease.beatAt}`;
  const seen = leases.get(slot);
  if (seen?.renewal === renewal) return now - seen.since < DEFAULT_LEASE_MS;
  leases.set(slot, { renewal, since: now });
  return true;
}

function isAlive({ state, at, everyMs }: CaptureReport): boolean {
  return state !== "STOPPED" && state !== "FAILED" && Date.now() - at < MISSED * everyMs;
}
