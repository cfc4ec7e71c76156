import { dynamodbClient } from "../../aws/clients.ts";
import { sourceKind } from "../../source/index.ts";
import { describe, healingRemedy } from "../../source/postgres/contract/unhealed-tables.ts";
import { readLease } from "../../state/capture-liveness.ts";
import { type CaptureReport, readCaptureReports } from "../../state/capture-report.ts";
import { readHolds } from "../../state/holds.ts";
import type { StatePlace } from "../../state/persistent-table.ts";
import { StateTableError, StateTableUnavailableError } from "../../state/state-errors.ts";
import { readUnhealed } from "../../state/unhealed.ts";
import { Sightings, type Standing, standingOf } from "../capture-standing.ts";
import { wordsOfWait } from "../status-problems.ts";
import { watchedReports } from "../watched-reports.ts";
import { type Check, type Finding, findingsOf, NotChecked, type Outcome, ok } from "./check.ts";
import { CaptureServiceError } from "./doctor-errors.ts";
import { type Examination, needed } from "./examination.ts";

/** Longer than a task that seems silent is watched. */
const STANDING_MS = 30_000;

/** How the capture tasks of the definition stand, and what they hold and lack: how the rest does `tributary status` says. */
export function captureReportChecks(examination: Examination): readonly Check[] {
  const read = <T>(signal: AbortSignal, of: (place: StatePlace) => Promise<T>): Promise<T> =>
    readState(examination, signal, of);
  return [
    {
      name: "capture task",
      deadlineMs: STANDING_MS,
      async look(signal) {
        const { source } = examination.requirePipeline();
        // Slots that were removed have left their reports.
        const slots = sourceKind(source).tasks(source);
        const standings = await read(signal, (place) => standingsOf(place, slots));
        if (standings.every(({ report, state }) => !report && state === "NEVER STARTED"))
          throw new NotChecked("no capture task has reported yet");
        const named = (i: number) =>
          slots.length > 1 ? `the capture task of slot ${slots[i]}` : "the capture task";
        const problems = standings.flatMap((standing, i) => problemsOf(standing, slots[i] ?? 1, named(i)));
        return outcome(problems, standings.map(inWords).join("; "));
      },
    },
    {
      name: "held topics",
      async look(signal) {
        const [holds, unhealed] = await Promise.all([read(signal, readHolds), read(signal, readUnhealed)]);
        const held = holds.map(({ topic, reason: { code, message, remedy } }) => ({
          ...{ code, message: `the topic ${topic} is held: ${message}`, remedy },
        }));
        const missing = unhealed
          .filter(({ asks }) => !asks)
          .map((entry) => ({
            code: "UNHEALED",
            message: `changes of ${entry.table} may be missing in the stream: ${describe(entry)}`,
            remedy: healingRemedy(entry),
          }));
        return outcome([...held, ...missing], "none, and no table with missing changes");
      },
    },
  ];
}

/** Reads something of the state table. @throws NotChecked where there is none, or it cannot be read */
export async function readState<T>(
  examination: Examination,
  signal: AbortSignal,
  of: (place: StatePlace) => Promise<T>,
): Promise<T> {
  const { name: pipeline } = examination.requirePipeline();
  await needed(examination.table(), "needs the table: see state table");
  const dynamodb = dynamodbClient(examination.subject.environment);
  const table = examination.requireResources().stateTable;
  return await of({ dynamodb, table, pipeline, signal })
    .catch((error: unknown) => {
      if (error instanceof StateTableError || error instanceof StateTableUnavailableError)
        throw new NotChecked(`dynamodb:Query: ${error.message}`);
      throw error;
    })
    .finally(() => dynamodb.destroy());
}

function outcome(problems: readonly Finding[], detail: string): Outcome {
  return problems.length > 0 ? { status: "problem", problems } : ok(detail);
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

function problemsOf({ state, report, failure }: Standing, slot: number, task: string): readonly Finding[] {
  if (state === "WAITING" && report?.waiting) {
    const { code, message, remedy, command } = wordsOfWait({ slot, waiting: report.waiting, failure });
    // It is doctor that says this.
    const next = command === undefined || command === "tributary doctor" ? "" : ` ${command}`;
    return code === undefined ? [] : [{ code, message: `${task} ${message}`, remedy: `${remedy}${next}` }];
  }
  if (failure && (state === "FAILED" || state === "WAITING" || state === "STARTING"))
    return (failure.problems ?? [failure]).map(({ code, message, remedy }) => ({
      ...{ code, message: `${task} ended: ${message}`, remedy },
    }));
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
