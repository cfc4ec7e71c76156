import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import { once } from "./call-retry.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { captureReportKey, type StateKey } from "./state-key.ts";
import { type StateItem, StateTable } from "./state-table.ts";

/*
 * What a capture task says of itself, for `tributary status` and its like: on AWS nobody else can ask the database. Each report is a
 * small item of its own, never the leased record, written without conditions that could fail a task. A slot has two seats: `holder` for the
 * task that has the lease, and `next` for the latest one that has not (it starts, waits, or was refused at the door). Tasks that share
 * lanes have a seat each, by their own id, which the table's TTL removes; the last one that ended stands in `holder`.
 */

/** States that a capture task reports. */
export const CAPTURE_STATES = [
  "STARTING",
  "WAITING",
  "RUNNING",
  "HOLDING",
  "PAUSED",
  "FAILED",
  "STOPPED",
] as const;

/** A state that a capture task reports. */
export type CaptureState = (typeof CAPTURE_STATES)[number];

/** Interval between two reports of a state that does not change, in milliseconds. */
export const REPORT_MS = 10_000;

const problem = z.object({ code: z.string(), message: z.string(), remedy: z.string() });

const failure = z.object({
  ...problem.shape,
  /** Of an error that tells of several problems, as a preflight does: each with its own remedy. */
  problems: z.array(problem).optional(),
  retry: z.enum(["retry", "restart", "stop"]),
  /** Milliseconds since 1970 UTC, by the task's clock, as all times here. */
  at: z.number(),
});

/** The error that ended a capture task. */
export type CaptureFailure = Readonly<z.output<typeof failure>>;

const figures = z.object({
  /** Change events that the stream has taken since the task's start. */
  changes: z.number(),
  connected: z.boolean().optional(),
  reconnects: z.number().optional(),
  /** How far behind by time while something waits; 0 while nothing does. */
  lagMs: z.number(),
  lagBytes: z.number().optional(),
  bufferedBytes: z.number(),
  oldestUnacknowledgedMs: z.number(),
  retries: z.number(),
  throttles: z.number(),
  /** Commit time of the last acknowledged transaction. */
  acknowledgedCommitTimeMs: z.number().optional(),
  /** LSNs as PostgreSQL prints them; of a log only, as all that follows down to `heldTopics`. */
  confirmedLsn: z.string().optional(),
  serverLsn: z.string().optional(),
  walStatus: z.string().optional(),
  walHeldBytes: z.number().optional(),
  /** `safe_wal_size`: bytes of WAL until the slot is in danger; undefined without a bound. */
  safeWalBytes: z.number().optional(),
  /** `max_slot_wal_keep_size` in bytes; -1: no bound. */
  maxSlotWalKeepBytes: z.number().optional(),
  walLossSeconds: z.number().optional(),
  leftoverSlots: z.number().optional(),
  heldTopics: z.number().optional(),
  oldestTransactionSeconds: z.number().optional(),
  oldestTransactionPid: z.number().optional(),
});

/** Figures of a capture task that streams. */
export type CaptureFigures = Readonly<z.output<typeof figures>>;

const newestChange = z.object({ partition: z.int(), position: z.string(), at: z.number() });

/** A change that the stream has, and when the task knew that it was the newest of its topic. */
export type NewestChange = Readonly<z.output<typeof newestChange>>;

const report = z.object({
  state: z.enum(CAPTURE_STATES),
  /** Begin of this state. */
  since: z.number(),
  /** Time of the report. */
  at: z.number(),
  /** Counts the task's reports: a reader that saw it move needs no clock. */
  beat: z.int(),
  /** The next report is due after this time, in milliseconds. */
  everyMs: z.number(),
  /** Id of the task, drawn at its start. */
  task: z.string(),
  startedAt: z.number(),
  /** Where the task runs, so that people find it. */
  process: z.object({ host: z.string(), pid: z.int() }).optional(),
  /** Generation of its lease. */
  generation: z.int().optional(),
  /** For what it waits: `lease`, `slot`, `database`, `stream`, …; and in words. */
  waiting: z.object({ for: z.string(), message: z.string(), code: z.string().optional() }).optional(),
  /** Why it is paused, in words. */
  paused: z.string().optional(),
  figures: figures.optional(),
  /** By topic, the newest changes that the stream has, the newest first, thinned out with their age. */
  newest: z.record(z.string(), z.array(newestChange)).optional(),
});

/** A report of a capture task on itself. */
export type CaptureReport = Readonly<z.output<typeof report>>;

/** The place of a report: `holder`, `next`, or `task` with an id. */
export type ReportSeat = "holder" | "next" | { readonly task: string };

/** A report as it stands in the table. */
export interface StoredReport {
  readonly slot: number;
  readonly seat: "holder" | "next" | "task";
  /** Undefined where this version cannot read it. */
  readonly report: CaptureReport | undefined;
  /** The error that ended a task there, until one streams again. */
  readonly failure: CaptureFailure | undefined;
}

/** The item of a report. */
export interface ReportPlace {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly slot: number;
  readonly seat: ReportSeat;
}

/** A seat of one task alone goes away by itself after this, in milliseconds. */
const TASK_SEAT_MS = 3600_000;

/**
 * Writes a report, in one try. `failed`: the error that ended the task, null to forget the one before; left out, that stays.
 * @throws the SDK's error
 */
export async function writeCaptureReport(
  place: ReportPlace,
  written: CaptureReport,
  failed: CaptureFailure | null | undefined,
  signal: AbortSignal,
): Promise<void> {
  const expiresAt = Math.floor((written.at + TASK_SEAT_MS) / 1000);
  const set: StateItem = {
    report: { S: JSON.stringify(written) },
    ...(typeof place.seat === "object" && { expiresAt: { N: String(expiresAt) } }),
    ...(failed && { failure: { S: JSON.stringify(failed) } }),
    ...(written.generation !== undefined && { generation: { N: String(written.generation) } }),
  };
  const names = Object.keys(set);
  await tableOf(place, signal).update(keyOf(place), {
    UpdateExpression: `SET ${names.map((name) => `#${name} = :${name}`).join(", ")}${failed === null ? " REMOVE #failure" : ""}`,
    // A task that lost its lease does not overwrite its successor's report: refused, and nothing is wrong.
    ...(written.generation !== undefined && {
      ConditionExpression: "attribute_not_exists(#generation) OR #generation <= :generation",
    }),
    ExpressionAttributeNames: Object.fromEntries(
      [...names, ...(failed === null ? ["failure"] : [])].map((name) => [`#${name}`, name]),
    ),
    ExpressionAttributeValues: Object.fromEntries(
      names.map((name) => [`:${name}`, set[name] ?? { NULL: true }]),
    ),
  });
}

/** Removes the report of a seat. @throws the SDK's error */
export async function removeCaptureReport(place: ReportPlace, signal: AbortSignal): Promise<void> {
  await tableOf(place, signal).delete(keyOf(place));
}

/** Reads what the last task in a seat reported, in one try; undefined where nothing does or can be read. @throws the SDK's error */
export async function readCaptureReport(
  place: ReportPlace,
  signal: AbortSignal,
): Promise<CaptureReport | undefined> {
  return parsed(report, (await tableOf(place, signal).get(keyOf(place)))?.report?.S);
}

/**
 * Reads the reports of all capture tasks of a pipeline; `place.signal` cuts the call.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function readCaptureReports(place: StatePlace): Promise<readonly StoredReport[]> {
  const key = captureReportKey(place.pipeline);
  const found: StoredReport[] = [];
  for await (const item of persistentTable(place, true).query(key)) {
    const [slot, kind] = (item.sk?.S ?? "").slice(key.sk.length).split("#");
    found.push({
      slot: Number(slot),
      seat: kind === "next" || kind === "task" ? kind : "holder",
      report: parsed(report, item.report?.S),
      failure: parsed(failure, item.failure?.S),
    });
  }
  return found;
}

function parsed<T>(schema: z.ZodType<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined;
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function tableOf({ dynamodb, table }: ReportPlace, signal: AbortSignal): StateTable {
  return new StateTable(dynamodb, table, once(signal));
}

function keyOf({ pipeline, slot, seat }: ReportPlace): StateKey {
  return captureReportKey(pipeline, slot, typeof seat === "object" ? `task#${seat.task}` : seat);
}
