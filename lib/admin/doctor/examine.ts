import type { Pipeline } from "../../definition/definition.ts";
import { explainSessionError } from "../../source/postgres/link/connection-errors.ts";
import { captureReportChecks } from "./capture-report.ts";
import { captureServiceChecks } from "./capture-service.ts";
import { CHECK_MS, type Check, type Outcome, outcomeOfThrown } from "./check.ts";
import { claimStoreChecks } from "./claim-store.ts";
import { clockChecks } from "./clocks.ts";
import { consumerChecks } from "./consumers.ts";
import { databaseChecks } from "./database.ts";
import { type DoctorSubject, Examination } from "./examination.ts";
import { handlerChecks } from "./handlers.ts";
import { identityChecks } from "./identity.ts";
import { projectChecks } from "./project.ts";
import { queueChecks } from "./queues.ts";
import { rightsChecks } from "./rights.ts";
import { slotChecks } from "./slot.ts";
import { stateTableChecks } from "./state-table.ts";
import { streamChecks } from "./stream.ts";

/** All that doctor looks at, in the order in which it is told: another area is an entry here. */
const AREAS: readonly ((examination: Examination) => readonly Check[])[] = [
  projectChecks,
  handlerChecks,
  databaseChecks,
  clockChecks,
  identityChecks,
  streamChecks,
  stateTableChecks,
  queueChecks,
  claimStoreChecks,
  consumerChecks,
  captureServiceChecks,
  captureReportChecks,
  slotChecks,
  rightsChecks,
];

/** A check and its end. */
export type CheckResult = { readonly name: string } & Outcome;

/** What doctor found. */
export interface Diagnosis {
  readonly pipeline: string | undefined;
  /** Where the pipeline runs; undefined where nothing names a place. */
  readonly place: string | undefined;
  /** No check has found a problem; some may not have been taken. */
  readonly healthy: boolean;
  /** In a fixed order, whichever ended first. */
  readonly checks: readonly CheckResult[];
}

/** Settings of `examine`. */
export interface ExamineOptions {
  readonly signal?: AbortSignal;
  /** Time that a check has at most, in milliseconds; default its own. */
  readonly deadlineMs?: number;
  /** Called when a check has ended, with the names of those that are under way still. */
  readonly onProgress?: (underWay: readonly string[]) => void;
}

/**
 * Looks at everything that can be reached of a pipeline, all at once, and touches nothing. Never throws for what it finds: each check ends as
 * ok, problem or unchecked, within its own deadline.
 *
 * @example
 * const { healthy, checks } = await examine(subject);
 * for (const check of checks) if (check.status === "problem") console.error(check.name, check.problems);
 */
export async function examine(
  subject: DoctorSubject,
  { signal = new AbortController().signal, deadlineMs, onProgress = () => {} }: ExamineOptions = {},
): Promise<Diagnosis> {
  const over = new AbortController();
  const examination = new Examination(subject, AbortSignal.any([signal, over.signal]));
  const checks = AREAS.flatMap((area) => area(examination));
  const underWay = new Set(checks.map(({ name }) => name));
  onProgress([...underWay]);
  const results = await Promise.all(
    checks.map(async (check): Promise<CheckResult> => {
      const outcome = await outcomeWithin(
        { ...check, ...(deadlineMs !== undefined && { deadlineMs }) },
        signal,
      );
      underWay.delete(check.name);
      onProgress([...underWay]);
      return { name: check.name, ...outcome };
    }),
  );
  // Looks that outlived the checks that asked for them.
  over.abort();
  signal.throwIfAborted();
  const pipeline: Pipeline | undefined = examination.pipeline;
  return {
    pipeline: pipeline?.name,
    place: subject.resources?.place,
    healthy: results.every(({ status }) => status !== "problem"),
    checks: results,
  };
}

async function outcomeWithin({ look, deadlineMs = CHECK_MS }: Check, signal: AbortSignal): Promise<Outcome> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), deadlineMs);
  const until = AbortSignal.any([signal, limit.signal]);
  const late = new Promise<Outcome>((resolve) => {
    const end = () => resolve({ status: "unchecked", why: `no answer within ${deadlineMs / 1000} s` });
    until.addEventListener("abort", end, { once: true });
  });
  const looked = look(until).catch((error: unknown) => outcomeOfThrown(explainSessionError(error)));
  try {
    return await Promise.race([looked, late]);
  } finally {
    clearTimeout(timer);
    // What is under way still ends with it.
    limit.abort();
  }
}
