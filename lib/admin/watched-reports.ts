import { setTimeout as delay } from "node:timers/promises";
import type { CaptureReport, StoredReport } from "../state/capture-report.ts";
import { hasEnded, type Sightings } from "./capture-standing.ts";

/** Means of `watchedReports`. */
export interface WatchOptions {
  /** What was seen so far; the reports are noted there. */
  readonly sightings: Sightings;
  /** Reads the reports again; undefined ends the watch. */
  again(): Promise<readonly StoredReport[] | undefined>;
  /** False: nothing is waited for; default true. */
  readonly patient?: boolean | undefined;
  /** Told what is waited for. */
  readonly onWait?: ((line: string) => void) | undefined;
  readonly signal: AbortSignal;
}

/** A silent task is watched for this much longer than its reports are apart, in milliseconds. */
const MARGIN_MS = 3_000;
const POLL_MS = 500;

/**
 * Watches tasks that seem silent by the clocks until they report, or should have; returns the reports as they are then.
 * @throws the signal's reason, and what `again` throws
 */
export async function watchedReports(
  first: readonly StoredReport[],
  { sightings, again, patient = true, onWait, signal }: WatchOptions,
): Promise<readonly StoredReport[]> {
  sightings.note(first, performance.now());
  let reports = first;
  const begun = performance.now();
  for (let told = false; patient; told = true) {
    const latest = latestSilent(reports, sightings);
    if (!latest || performance.now() - begun > latest.everyMs + MARGIN_MS) break;
    if (!told)
      onWait?.(
        `a capture task seems silent: watching it for ${Math.ceil((latest.everyMs + MARGIN_MS) / 1000)} s`,
      );
    await delay(POLL_MS, undefined, { signal });
    const next = await again();
    if (!next) break;
    reports = next;
    sightings.note(reports, performance.now());
  }
  return reports;
}

/** Of tasks side by side one that reports is enough: those that died leave their reports for an hour. */
function latestSilent(reports: readonly StoredReport[], sightings: Sightings): CaptureReport | undefined {
  const isAlive = (report: CaptureReport | undefined) =>
    report !== undefined && !hasEnded(report) && sightings.isAlive(report, performance.now(), Date.now());
  const silent = reports.flatMap(({ slot, seat, report }) => {
    if (!report || hasEnded(report) || isAlive(report)) return [];
    const others = seat === "task" ? reports.filter((other) => other.slot === slot) : [];
    return others.some((other) => isAlive(other.report)) ? [] : [report];
  });
  return silent.toSorted((a, b) => b.at - a.at)[0];
}
