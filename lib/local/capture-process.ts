import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { extname } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { NODE_ARGUMENTS } from "../../functions/capture/node-arguments.ts";
import { METRICS_SECONDS_VARIABLE } from "../capture/capture-metrics.ts";
import { errorLines, type PrintedError } from "../change/error-text.ts";
import { parseLsn } from "../change/lsn.ts";
import { defineError } from "../change/tributary-error.ts";
import { TABLE_METRIC } from "../telemetry/metrics.ts";
import { embeddedMetricsRefusal } from "./aws-limits/embedded-metrics.ts";
import { forwardLines } from "./lambda/log-lines.ts";
import { parsedLine } from "./parsed-line.ts";

/** What the capture task's last error line says. */
type Ended = PrintedError;

/** The capture task could not start, or ended with an error that starting it again would not mend: its own words. */
export class CaptureFailedError extends defineError("CAPTURE_FAILED", "stop").from(
  (ended: Ended | undefined) => ({
    message: ended?.message ?? "the capture task ended",
    remedy: ended?.remedy ?? "Look at its log above.",
    /** What the capture task's own error has, where it said one: it is that which is explained. */
    told: ended,
  }),
) {}

const metricsLine = z.object({
  tributary: z.literal("capture"),
  changes: z.number(),
  lagMs: z.number().optional(),
  lagBytes: z.number().optional(),
  acknowledgedLsn: z.string().transform(parseLsn).optional(),
  backfills: z
    .array(
      z.object({
        table: z.string(),
        status: z.string(),
        rows: z.number(),
        percent: z.number().optional(),
      }),
    )
    .default([]),
});

/** For CloudWatch alone: backfills, whose figures the line of all has too, pauses, and what consumers stand at. */
const otherMetrics = z.object({ tributary: z.enum(["capture-backfill", "pause", "standing"]) });

const tableLine = z.object({
  tributary: z.literal("capture-table"),
  table: z.string(),
  [TABLE_METRIC.changes.name]: z.number(),
});

const text = z.string();
const errorLine = z.object({
  level: z.literal("ERROR"),
  message: text,
  remedy: text.optional(),
  code: text.optional(),
  problems: z.array(z.object({ code: text, message: text, remedy: text })).optional(),
});

/** Counts of the capture task over all its starts, and its lag. */
export interface CaptureFigures {
  /** Change events that Kinesis acknowledged. */
  readonly changes: number;
  /** Changes read, by table as people write it. */
  readonly tables: Readonly<Record<string, number>>;
  readonly lagMs: number | undefined;
  readonly lagBytes: number | undefined;
  readonly restarts: number;
  /** Backfills under way, or that have just ended. */
  readonly backfills: z.infer<typeof metricsLine>["backfills"];
  /** Everything in the log up to here is in the stream. */
  readonly acknowledgedLsn: bigint | undefined;
}

/** Settings of `CaptureProcess`. */
export interface CaptureProcessOptions {
  /** See functions/capture/main.ts; the machine's own environment is not inherited. */
  readonly environment: Readonly<Record<string, string>>;
  readonly onLog: (line: string) => void;
  /** The program that is run; default the capture task. */
  readonly program?: string;
  /** It ended for good. */
  readonly onFailure: (error: CaptureFailedError) => void;
}

/** TypeScript here, JavaScript where the package is installed. */
const MAIN = fileURLToPath(
  new URL(`../../functions/capture/main${extname(import.meta.filename)}`, import.meta.url),
);
const STOP_DEADLINE_MS = 10_000;
const RESTART_MS = 1_000;
/** Exit code of "an operator must act first". */
const STOPPED_FOR_GOOD = 2;

/** The capture task as a process of its own, started again when it ends with an error that may pass. */
export class CaptureProcess {
  readonly #options: CaptureProcessOptions;
  readonly #ready = Promise.withResolvers<void>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #child: ChildProcess | undefined;
  #lastError: z.infer<typeof errorLine> | undefined;
  #errorShown = false;
  /** Changes of the starts before the current one. */
  #before = 0;
  readonly #tables: Record<string, number> = {};
  #metrics: z.infer<typeof metricsLine> | undefined;
  #restarts = 0;
  #streamed = false;

  constructor(options: CaptureProcessOptions) {
    this.#options = options;
    // Whoever waits for it sees the error; it may be that nobody does.
    this.#ready.promise.catch(() => {});
    this.#running = this.#run();
  }

  /** Resolves once it streams; rejects with CaptureFailedError when it cannot. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get figures(): CaptureFigures {
    return {
      changes: this.#before + (this.#metrics?.changes ?? 0),
      tables: this.#tables,
      lagMs: this.#metrics?.lagMs,
      lagBytes: this.#metrics?.lagBytes,
      restarts: this.#restarts,
      backfills: this.#metrics?.backfills ?? [],
      acknowledgedLsn: this.#metrics?.acknowledgedLsn,
    };
  }

  /** Lets it store and confirm what it has read (10 s at most), then ends it. Idempotent. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const child = this.#child;
    child?.kill("SIGTERM");
    const impatient = setTimeout(() => child?.kill("SIGKILL"), STOP_DEADLINE_MS);
    await this.#running;
    clearTimeout(impatient);
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const code = await this.#runOnce();
      if (this.#stopping.signal.aborted) return;
      if (code === STOPPED_FOR_GOOD || !this.#streamed) {
        const error = new CaptureFailedError(this.#lastError);
        this.#ready.reject(error);
        this.#options.onFailure(error);
        return;
      }
      const why = this.#lastError?.message ?? (code === null ? "killed" : `exit code ${code}`);
      this.#lastError = undefined;
      this.#options.onLog(`capture: ended, starting it again: ${why}`);
      this.#restarts++;
      await delay(RESTART_MS, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    }
  }

  async #runOnce(): Promise<number | null> {
    const child = spawn(process.execPath, [...NODE_ARGUMENTS, this.#options.program ?? MAIN], {
      // A group of its own: Ctrl-C in the terminal is for the host. It ends with the host by the channel's end.
      detached: true,
      env: { PATH: process.env.PATH, [METRICS_SECONDS_VARIABLE]: "1", ...this.#options.environment },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child = child;
    forwardLines(child.stdout as Readable, (line) => this.#onLine(line));
    forwardLines(child.stderr as Readable, (line) => this.#options.onLog(`capture: ${line}`));
    const [code] = (await once(child, "close")) as [number | null];
    this.#before += this.#metrics?.changes ?? 0;
    this.#metrics = undefined;
    return code;
  }

  #onLine(line: string): void {
    // It went on behind an error: that was not its end.
    this.#showError();
    const refusal = embeddedMetricsRefusal(line);
    if (refusal) this.#options.onLog(`capture: CloudWatch takes no metrics from a line: ${refusal.message}`);
    const parsed = parsedLine(line);
    const metrics = metricsLine.safeParse(parsed);
    if (metrics.success) {
      this.#metrics = metrics.data;
      this.#streamed = true;
      this.#ready.resolve();
      return;
    }
    const table = tableLine.safeParse(parsed);
    if (table.success) {
      const { table: name, [TABLE_METRIC.changes.name]: added } = table.data;
      this.#tables[name] = (this.#tables[name] ?? 0) + added;
      return;
    }
    if (otherMetrics.safeParse(parsed).success) return;
    const error = errorLine.safeParse(parsed);
    if (!error.success) {
      this.#options.onLog(`capture: ${line}`);
      return;
    }
    // Where it is what ended the task, it is reported as the reason.
    this.#lastError = error.data;
    this.#errorShown = false;
  }

  #showError(): void {
    if (this.#lastError === undefined || this.#errorShown) return;
    this.#errorShown = true;
    const [first, ...more] = errorLines(this.#lastError);
    this.#options.onLog([`capture: ${first}`, ...more.map((line) => `  ${line}`)].join("\n"));
  }
}
