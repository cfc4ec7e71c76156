import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { problemsOf } from "../change/error-text.ts";
import { formatLsn } from "../change/lsn.ts";
import { TributaryError } from "../change/tributary-error.ts";
import type { Log } from "../log.ts";
import {
  type CaptureFailure,
  type CaptureFigures,
  type CaptureReport,
  REPORT_MS,
  type ReportPlace,
  readCaptureReport,
  removeCaptureReport,
  writeCaptureReport,
} from "../state/capture-report.ts";
import { isLog, lagBytes, lagMs } from "./capture-metrics.ts";
import type { CaptureMetrics, CaptureReporting } from "./capture-options.ts";
import { NewestChanges } from "./newest-changes.ts";

/** Dependencies of `CaptureReporter`. */
export interface CaptureReporterOptions {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly slot: number;
  /** True if several tasks run side by side, and none of them holds the lease. */
  readonly shared: boolean;
  readonly log: Log;
  /** Default `REPORT_MS`. */
  readonly everyMs?: number;
}

/** One write is given up after this, in milliseconds; at the end of the task, after less. */
const WRITE_MS = 5_000;
const LAST_WRITE_MS = 2_000;
/** Two writes are at least this far apart, however often the state changes. */
const GAP_MS = 1_000;
const MAX_TEXT = 2_000;
/** Problems of an error that are reported, at most: all others stand in the log. */
const MAX_PROBLEMS = 20;
/** Waits of a task that streams: they end when the stream takes records again. */
const OF_WRITING: ReadonlySet<string> = new Set(["stream", "lease"]);
/** Records that are refused for less than this are no standstill. */
const STANDSTILL_MS = 10_000;

/**
 * Reports a capture task in the state table: at each change of its state, and every 10 s between. It disturbs nothing: one write at a
 * time, each tried once, and a failed one is logged once and then ignored.
 */
export class CaptureReporter implements CaptureReporting {
  readonly #options: CaptureReporterOptions;
  readonly #everyMs: number;
  readonly #task = randomUUID();
  readonly #startedAt = Date.now();
  readonly #newest = new NewestChanges();
  #generation: number | undefined;
  #waiting: CaptureReport["waiting"];
  /** Place that the stream had acknowledged when it was last said to refuse records. */
  #stuckAt: unknown;
  #paused: string | undefined;
  #metrics: CaptureMetrics | undefined;
  /** The state of the last report, and since when. */
  #state: Pick<CaptureReport, "state" | "since"> & { readonly what: string } = {
    state: "STARTING",
    what: "",
    since: Date.now(),
  };
  #beat = 0;
  #writing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wroteAt = Number.NEGATIVE_INFINITY;
  #failed = false;
  /** A task that has the lease and streams leaves nothing of itself in the other seat. */
  #moved = false;
  #ended = false;

  constructor(options: CaptureReporterOptions) {
    this.#options = options;
    this.#everyMs = options.everyMs ?? REPORT_MS;
    void this.#recall();
    this.#report();
  }

  tookLease(generation: number): void {
    this.#generation = generation;
    this.#waiting = undefined;
    this.#report();
  }

  paused(why: string | undefined): void {
    this.#paused = why;
    // Those of a task at rest say nothing of the one that goes on.
    if (why === undefined) this.#metrics = undefined;
    this.#reportChange();
  }

  /** The task waits for something, as its log says; `code`: of the error that has it wait. */
  waiting(what: string, message: string, code?: string): void {
    this.#waiting = { for: what, message: short(message), ...(code !== undefined && { code }) };
    this.#stuckAt = this.#metrics?.stream.acknowledgedPlace;
    this.#reportChange();
  }

  /** Takes the figures, every second or so. */
  take(metrics: CaptureMetrics): void {
    this.#metrics = metrics;
    const { stream, source } = metrics;
    const { newest, oldestUnacknowledgedMs, unansweredMs = 0, acknowledgedPlace } = stream;
    if (newest) this.#newest.take(newest(), oldestUnacknowledgedMs, Date.now());
    const isIdle = oldestUnacknowledgedMs === 0 && unansweredMs === 0;
    // What the source gives without changes is acknowledged without the stream.
    const writes = isIdle || (unansweredMs === 0 && acknowledgedPlace !== this.#stuckAt);
    if (this.#waiting && (OF_WRITING.has(this.#waiting.for) ? writes : source?.connected))
      this.#waiting = undefined;
    this.#reportChange();
  }

  /** Writes how the task ended: by this error, or in order. Takes 3 s at most. */
  async end(error?: unknown): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#timer);
    // What is under way must not come behind the last word.
    await Promise.race([this.#writing, delay(GAP_MS, undefined, { ref: false })]);
    const failure = error === undefined ? undefined : failureOf(error);
    const ended = this.#next(failure ? "FAILED" : "STOPPED");
    try {
      const { shared } = this.#options;
      const place = this.#place(shared ? "holder" : undefined);
      const signal = AbortSignal.timeout(LAST_WRITE_MS);
      await writeCaptureReport(place, ended, failure ?? null, signal);
      if (shared) await removeCaptureReport(this.#place(), signal);
    } catch (thrown) {
      this.#logFailure(thrown);
    }
  }

  #reportChange(): void {
    const { state, what } = this.#stateNow();
    if (state !== this.#state.state || what !== this.#state.what) this.#report();
  }

  /** Writes as soon as it may, and then again when it is time. */
  #report(): void {
    if (this.#ended) return;
    clearTimeout(this.#timer);
    const due = Math.max(0, this.#wroteAt + GAP_MS - performance.now());
    this.#timer = setTimeout(() => {
      // One at a time; what is late now comes with the next.
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined;
        if (this.#ended) return;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#report(), this.#everyMs).unref();
        this.#reportChange();
      });
    }, due).unref();
  }

  async #write(): Promise<void> {
    this.#wroteAt = performance.now();
    const { state, what } = this.#stateNow();
    const streams = state === "RUNNING" || state === "HOLDING";
    const report = this.#next(state, what);
    const signal = AbortSignal.timeout(WRITE_MS);
    try {
      await writeCaptureReport(this.#place(), report, streams ? null : undefined, signal);
      if (streams && !this.#moved && !this.#options.shared) {
        this.#moved = true;
        await this.#leaveNext(signal);
      }
      this.#failed = false;
    } catch (error) {
      this.#logFailure(error);
    }
  }

  /** Another task that waits there by now stays. */
  async #leaveNext(signal: AbortSignal): Promise<void> {
    const next = this.#place("next");
    if ((await readCaptureReport(next, signal))?.task === this.#task) await removeCaptureReport(next, signal);
  }

  #stateNow(): { readonly state: CaptureReport["state"]; readonly what: string } {
    if (this.#paused !== undefined) return { state: "PAUSED", what: this.#paused };
    // A record that is sent once more is no standstill.
    const { oldestUnacknowledgedMs = Infinity, unansweredMs = 0 } = this.#metrics?.stream ?? {};
    const isBrief =
      OF_WRITING.has(this.#waiting?.for ?? "") &&
      Math.max(oldestUnacknowledgedMs, unansweredMs) < STANDSTILL_MS;
    if (this.#waiting && !isBrief) return { state: "WAITING", what: this.#waiting.for };
    const source = this.#metrics?.source;
    if (source === undefined) return { state: "STARTING", what: "" };
    if (!source.connected) return { state: "WAITING", what: "database" };
    const held = isLog(source) ? source.holds.map(({ topic }) => topic).join() : "";
    return held === "" ? { state: "RUNNING", what: "" } : { state: "HOLDING", what: held };
  }

  #next(state: CaptureReport["state"], what = ""): CaptureReport {
    const now = Date.now();
    if (state !== this.#state.state || what !== this.#state.what) this.#state = { state, what, since: now };
    const waiting = this.#waiting ?? { for: "database", message: "the database does not answer" };
    return {
      ...{ state, since: this.#state.since, at: now, beat: ++this.#beat, everyMs: this.#everyMs },
      ...{ task: this.#task, startedAt: this.#startedAt, generation: this.#generation },
      process: { host: hostname(), pid: process.pid },
      ...(state === "WAITING" && { waiting }),
      ...(state === "PAUSED" && { paused: this.#paused }),
      ...(this.#metrics && { figures: figuresOf(this.#metrics, now) }),
      newest: this.#newest.all,
    };
  }

  #place(seat?: ReportPlace["seat"]): ReportPlace {
    const { dynamodb, table, pipeline, slot, shared } = this.#options;
    const own = shared ? { task: this.#task } : this.#generation === undefined ? "next" : "holder";
    return { dynamodb, table, pipeline, slot, seat: seat ?? own };
  }

  /** What the task before knew of topics in which nothing has changed since. */
  async #recall(): Promise<void> {
    const known = await readCaptureReport(this.#place("holder"), AbortSignal.timeout(WRITE_MS)).catch(
      () => {},
    );
    if (known?.newest) this.#newest.recall(known.newest);
  }

  #logFailure(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.log.warn(`the task's report on itself cannot be written: ${(error as Error).name}`, {
      remedy: "Nothing to do for the capture itself: tributary status shows this task as silent meanwhile.",
    });
  }
}

/** Returns a log that passes everything on, and tells what the task waits for. */
export function listening(
  log: Log,
  onWait: (what: string, message: string, code: string | undefined) => void,
): Log {
  const heard =
    (level: keyof Log) =>
    (message: string, fields?: Record<string, unknown>): void => {
      log[level](message, fields);
      const { waitsFor, code } = fields ?? {};
      if (typeof waitsFor === "string")
        onWait(waitsFor, message, typeof code === "string" ? code : undefined);
    };
  return { info: heard("info"), warn: heard("warn"), error: heard("error") };
}

function failureOf(error: unknown): CaptureFailure {
  const at = Date.now();
  if (error instanceof TributaryError) {
    const { code, message, remedy, retry } = error;
    const problems = problemsOf(error)
      ?.slice(0, MAX_PROBLEMS)
      .map((one) => ({ code: one.code, message: short(one.message), remedy: short(one.remedy) }));
    return { code, message: short(message), remedy: short(remedy), retry, at, ...(problems && { problems }) };
  }
  // The message of an error that is not ours may hold values of rows.
  const { name } = error as Error;
  const remedy = "Look at the task's log. It is started again; should it repeat, report it with the log.";
  return { code: "UNEXPECTED", message: `the capture task failed: ${name}`, remedy, retry: "restart", at };
}

function figuresOf({ stream, source }: CaptureMetrics, now: number): CaptureFigures {
  const { changes, bufferedBytes, oldestUnacknowledgedMs, retries, throttles } = stream;
  return {
    ...{ changes, bufferedBytes, oldestUnacknowledgedMs, retries, throttles, lagMs: lagMs(stream, now) },
    acknowledgedCommitTimeMs: stream.acknowledgedCommitTimeMs,
    connected: source?.connected,
    reconnects: source?.reconnects,
    oldestTransactionSeconds: source?.oldestTransactionSeconds,
    ...(isLog(source) && {
      lagBytes: lagBytes(source),
      confirmedLsn: formatLsn(source.confirmedLsn),
      serverLsn: formatLsn(source.serverLsn),
      walStatus: source.walStatus,
      walHeldBytes: source.walHeldBytes,
      safeWalBytes: source.safeWalBytes,
      maxSlotWalKeepBytes: source.maxSlotWalKeepBytes,
      walLossSeconds: source.walLossSeconds,
      leftoverSlots: source.leftoverSlots?.length,
      heldTopics: source.holds.length,
      oldestTransactionPid: source.oldestTransactionPid,
    }),
  };
}

function short(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT - 1)}…` : text;
}
