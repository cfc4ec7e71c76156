import type { StoredLease } from "../state/capture-liveness.ts";
import type { CaptureFailure, CaptureReport, StoredReport } from "../state/capture-report.ts";

/**
 * State of the capture task of a slot, as a reader finds it. Beside what tasks report: `SILENT`, one that should report and does not;
 * `NEVER STARTED`; `UNREPORTED`, a version that does not report holds the lease and renews it.
 */
export type StandingState = CaptureReport["state"] | "SILENT" | "NEVER STARTED" | "UNREPORTED";

/** The standing of a slot's capture task. */
export interface Standing {
  readonly state: StandingState;
  /** The report that says so; undefined where there is none. */
  readonly report: CaptureReport | undefined;
  /** The error that ended the task, or the one before it, since when none has streamed. */
  readonly failure: CaptureFailure | undefined;
  /** Tasks that stream side by side, where they share lanes. */
  readonly tasks: number;
  /** The state of a further task that does not hold the lease: it waits, or was refused. */
  readonly newcomer: Pick<Standing, "state" | "report" | "failure"> | undefined;
}

/** Reports that may be missed before a task counts as silent. */
const MISSED = 3;
/** Clocks of task and reader may differ by this without anybody being believed dead, in milliseconds. */
const CLOCK_TOLERANCE_MS = 15_000;
/** A task that ended with an error which may pass is started again within this, by everything that runs one. */
const RESTART_MS = 600_000;

/** Remembers what a reader saw of reports: one that moves under its eyes is alive, whatever the clocks say. */
export class Sightings {
  readonly #seen = new Map<string, { readonly beat: number; readonly at: number; readonly moved: boolean }>();

  /** `now`: milliseconds of a clock that only goes forward. */
  note(reports: readonly StoredReport[], now: number): void {
    // A task that was killed at a change of seat stands in both, with an older beat in one: that is no movement.
    const newest = new Map<string, number>();
    for (const { report } of reports)
      if (report) newest.set(report.task, Math.max(report.beat, newest.get(report.task) ?? report.beat));
    for (const [task, beat] of newest) {
      const before = this.#seen.get(task);
      if (before && before.beat >= beat) continue;
      this.#seen.set(task, { beat, at: now, moved: before !== undefined });
    }
  }

  /** Returns whether a task reports; `now` by the clock that only goes forward, `wall` in milliseconds since 1970 UTC. */
  isAlive({ task, at, everyMs }: CaptureReport, now: number, wall: number): boolean {
    const patience = MISSED * everyMs;
    const seen = this.#seen.get(task);
    if (seen && now - seen.at > patience) return false;
    if (seen?.moved) return true;
    const age = wall - at;
    return age <= patience + CLOCK_TOLERANCE_MS && age >= -CLOCK_TOLERANCE_MS;
  }
}

/** Returns whether a task has ended by its own report. */
export function hasEnded({ state }: Pick<CaptureReport, "state">): boolean {
  return state === "FAILED" || state === "STOPPED";
}

/** Returns how the capture task of a slot stands, by the reports and the lease of that slot. */
export function standingOf(
  reports: readonly StoredReport[],
  lease: StoredLease | undefined,
  isAlive: (report: CaptureReport) => boolean,
  wall: number,
): Standing {
  const readable = reports.flatMap(({ seat, report, failure }) =>
    report ? [{ seat, report, failure }] : [],
  );
  const alive = readable.filter(({ report }) => !hasEnded(report) && isAlive(report));
  const side = alive.filter(({ seat }) => seat === "task");
  const holder = alive.find(({ seat }) => seat === "holder") ?? side.toSorted(byTime)[0];
  const latest = readable.toSorted(byTime)[0];
  const shown = holder ?? latest;
  if (!shown)
    return {
      ...unreported(lease, wall),
      report: undefined,
      tasks: 0,
      newcomer: undefined,
      failure: undefined,
    };
  const { report } = shown;
  const streams = report.state === "RUNNING" || report.state === "HOLDING";
  const failure = reports.flatMap((each) => each.failure ?? []).sort((a, b) => b.at - a.at)[0];
  const state = stateOf(report, isAlive(report), failure, wall);
  const next = readable.find(({ seat, report: { task } }) => seat === "next" && task !== report.task);
  // Of tasks side by side, what ended last stands there, until one is started in its place.
  const ended = side.length > 0 ? readable.find(({ seat }) => seat === "holder") : undefined;
  const other = next ?? ended;
  const isNew =
    other &&
    holder &&
    alive.every(({ report }) => other.report.at > report.startedAt) &&
    hasNews(other.report);
  return {
    state,
    report,
    failure: streams && state !== "SILENT" ? undefined : failure,
    tasks: side.length,
    newcomer:
      other && isNew
        ? {
            state: stateOf(other.report, isAlive(other.report), other.failure, wall),
            report: other.report,
            failure: other.failure,
          }
        : undefined,
  };
}

/** One that ended in order is nothing to tell. */
function hasNews({ state }: CaptureReport): boolean {
  return state !== "STOPPED";
}

function stateOf(
  report: CaptureReport,
  alive: boolean,
  failure: CaptureFailure | undefined,
  wall: number,
): StandingState {
  // An error that may pass ends the process and not the task: what runs it starts it again.
  if (report.state === "FAILED" && failure && failure.retry !== "stop" && wall - report.at < RESTART_MS)
    return "WAITING";
  if (hasEnded(report) || alive) return report.state;
  return "SILENT";
}

function unreported(lease: StoredLease | undefined, wall: number): { readonly state: StandingState } {
  if (lease === undefined) return { state: "NEVER STARTED" };
  if (lease.owner === undefined) return { state: "STOPPED" };
  const age = lease.beatAt === undefined ? Number.POSITIVE_INFINITY : Math.abs(wall - lease.beatAt);
  return { state: age < 60_000 ? "UNREPORTED" : "SILENT" };
}

function byTime(a: { readonly report: CaptureReport }, b: { readonly report: CaptureReport }): number {
  return b.report.at - a.report.at;
}
