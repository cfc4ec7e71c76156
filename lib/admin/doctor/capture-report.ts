import { dynamodbClient } from "../../aws/clients.ts";
import { sourceKind } from "../../source/index.ts";
import { readLease } from "../../state/capture-liveness.ts";
import { type CaptureReport, readCaptureReports } from "../../state/capture-report.ts";
import type { StatePlace } from "../../state/persistent-table.ts";
import { StateTableError, StateTableUnavailableError } from "../../state/state-errors.ts";
import { Sightings, type Standing, standingOf } from "../capture-standing.ts";
import { watchedReports } from "../watched-reports.ts";
import { type Check, type Finding, findingsOf, NotChecked, ok } from "./check.ts";
import { CaptureServiceError } from "./doctor-errors.ts";
import { type Examination, needed } from "./examination.ts";

/** Longer than a task that seems silent is watched. */
const STANDING_MS = 30_000;

/** How the capture tasks of the definition stand: how the rest does `tributary status` says. */
export function captureReportChecks(examination: Examination): readonly Check[] {
  return [
    {
      name: "capture task",
      deadlineMs: STANDING_MS,
      async look(signal) {
        const { name: pipeline, source } = examination.requirePipeline();
        await needed(examination.table(), "needs the table: see state table");
        const dynamodb = dynamodbClient(examination.subject.environment);
        const table = examination.requireResources().stateTable;
        // Slots that were removed have left their reports.
        const slots = sourceKind(source).tasks(source);
        const standings = await standingsOf({ dynamodb, table, pipeline, signal }, slots)
          .catch((error: unknown) => {
            if (error instanceof StateTableError || error instanceof StateTableUnavailableError)
              throw new NotChecked(`dynamodb:Query: ${error.message}`);
            throw error;
          })
          .finally(() => dynamodb.destroy());
        if (standings.every(({ report, state }) => !report && state === "NEVER STARTED"))
          throw new NotChecked("no capture task has reported yet");
        const named = (i: number) =>
          slots.length > 1 ? `the capture task of slot ${slots[i]}` : "the capture task";
        const problems = standings.flatMap((standing, i) => problemsOf(standing, named(i)));
        if (problems.length > 0) return { status: "problem", problems };
        return ok(standings.map(inWords).join("; "));
      },
    },
  ];
}

async function standingsOf(place: StatePlace, slots: readonly number[]): Promise<readonly Standing[]> {
  const sightings = new Sightings();
  const again = async () => (await readCaptureReports(place)).filter(({ slot }) => slots.includes(slot));
  const [first, ...leases] = await Promise.all([
    again(),
    ...slots.map((slot) => readLease({ ...place, slot })),
  ]);
  const reports = await watchedReports(first, { sightings, again, signal: place.signal });
  const wall = Date.now();
  const isAlive = (report: CaptureReport) => sightings.isAlive(report, performance.now(), wall);
  return slots.map((slot, i) =>
    standingOf(
      reports.filter((report) => report.slot === slot),
      leases[i],
      isAlive,
      wall,
    ),
  );
}

function problemsOf({ state, report, failure }: Standing, task: string): readonly Finding[] {
  if (failure && (state === "FAILED" || state === "WAITING" || state === "STARTING")) {
    const { code, message, remedy } = failure;
    return [{ code, message: `${task} ended: ${message}`, remedy }];
  }
  if (state !== "SILENT" && state !== "UNREPORTED") return [];
  const since = report ? ` since ${new Date(report.at).toISOString()}` : "";
  const message =
    state === "SILENT"
      ? `${task} no longer reports${since}: it was killed, hangs, or cannot reach the state table`
      : `${task} holds its lease, and does not report: it is of another version, or may not write to the state table`;
  const remedy =
    "Start it again, if what runs it does not; its last lines of log say more (tributary status shows how it goes on).";
  return findingsOf(new CaptureServiceError({ message, remedy }));
}

function inWords({ state, report }: Standing): string {
  return report ? `${state} since ${new Date(report.since).toISOString()}` : state;
}
