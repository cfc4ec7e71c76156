import { hostname } from "node:os";
import { shellWord } from "../change/printed-command.ts";
import { describe, healingRemedy } from "../source/postgres/contract/unhealed-tables.ts";
import { isOfIdentity } from "../source/postgres/identity/identity-errors.ts";
import type { CaptureFailure } from "../state/capture-report.ts";
import { THRESHOLD } from "../telemetry/alarms.ts";
import { consumerProblems } from "./consumer-problems.ts";
import type { CaptureTaskStatus, PipelineStatus, StatusProblem } from "./pipeline-status.ts";
import { counted, problem } from "./problem-words.ts";
import { commandIn, mendingIn } from "./remedy-command.ts";
import type { PipelineResources } from "./resources.ts";
import { ofPausedCapture, RESUME_NOW, type ProblemWords as Words } from "./status-pauses.ts";

/*
 * What of a status needs a person. Unhealthy is what docs/11-operations.md lists: a capture task that does not run, whatever it waits for;
 * WAL that runs out; held topics and tables with missing changes; consumers that hold, lack or have failed something, or are late; and
 * everything that somebody has paused, since retention and WAL do not wait.
 */

type Facts = Omit<PipelineStatus, "problems" | "healthy">;

/** Returns what an operator should know of, what is unhealthy first. */
export function problemsOf(status: Facts, resources: PipelineResources): readonly StatusProblem[] {
  const problems = [
    ...status.captures.flatMap((task) => ofTask(task, status, resources)),
    ...ofTopics(status),
    ...status.consumers.flatMap((consumer) => consumerProblems(consumer, resources)),
    ...ofTables(status),
    ...ofQueues(status),
  ];
  return problems.toSorted((a, b) => Number(a.severity === "note") - Number(b.severity === "note"));
}

function ofTask(task: CaptureTaskStatus, { captures }: Facts, resources: PipelineResources): StatusProblem[] {
  const part = captures.length > 1 ? `capture slot ${task.slot}` : "capture";
  const { newcomer, figures, walBudgetLeftPercent: left } = task;
  const found = ofState(task, resources);
  if (task.paused && task.state !== "PAUSED") found.push(ofPausedCapture(task));
  if (newcomer) found.push(ofNewcomer(newcomer));
  if (figures?.walStatus === "lost" || figures?.walStatus === "unreserved")
    found.push({
      message: `the slot's WAL is ${figures.walStatus}: the server ${figures.walStatus === "lost" ? "has removed" : "may remove"} changes that are not captured`,
      remedy: `Raise max_slot_wal_keep_size now${OF_RDS}, then find what lags.`,
      command: raiseBudget(figures),
    });
  else if (left !== undefined && left < THRESHOLD.walBudgetPercent.value)
    found.push({
      message: `${Math.floor(left)}% of the WAL budget is left: beyond it the slot is lost`,
      remedy: `Raise max_slot_wal_keep_size if the disk allows${OF_RDS}, then find what lags.`,
      command: raiseBudget(figures),
      ...(task.paused && RESUME_NOW),
    });
  if (figures?.walLossSeconds !== undefined && figures.walLossSeconds < THRESHOLD.walLoss.value)
    found.push({
      message: `if it goes on like this, the slot is lost in ${Math.ceil(figures.walLossSeconds / 60)} min`,
      remedy: `Raise max_slot_wal_keep_size now${OF_RDS}; look for the burst of writes, and for what holds capture back.`,
      command: raiseBudget(figures),
      ...(task.paused && RESUME_NOW),
    });
  if (figures && task.state === "RUNNING") found.push(...ofLag(figures));
  if (figures?.leftoverSlots)
    found.push({
      message: `${counted(figures.leftoverSlots, "slot of this pipeline stands", "slots of this pipeline stand")} on servers that are not read from, and keep WAL there`,
      remedy: "The capture log names the server, and the statement to run there.",
    });
  return found.map((words) => problem(part, words));
}

function ofNewcomer({
  state,
  code,
  message,
  process: where,
}: NonNullable<CaptureTaskStatus["newcomer"]>): Words {
  const isHere = where?.host === hostname();
  const told = where && ` It is process ${where.pid}${isHere ? "" : ` on ${where.host}`}.`;
  const found = `another capture task was started: ${state}${message ? `: ${message}` : ""}`;
  if (code !== undefined)
    return {
      ...{ code, message: found },
      remedy: `The one that runs goes on; correct what the message says before it is replaced.${told ?? ""}`,
    };
  return {
    ...{ severity: "note", message: found },
    remedy: `It takes over when the one that runs ends. If two are not meant to run, end one.${told ?? ""}`,
    command: isHere ? `kill ${where.pid}` : undefined,
  };
}

const OF_RDS = " (on RDS and Aurora in the parameter group)";

/** For psql; twice of what there is. */
function raiseBudget(figures: CaptureTaskStatus["figures"]): string {
  const budget = figures?.maxSlotWalKeepBytes;
  if (budget === undefined || budget <= 0) return "SHOW max_slot_wal_keep_size;";
  const megabytes = Math.ceil((2 * budget) / 1024 ** 2);
  return `ALTER SYSTEM SET max_slot_wal_keep_size = '${megabytes}MB'; SELECT pg_reload_conf();`;
}

function ofLag(figures: NonNullable<CaptureTaskStatus["figures"]>): Words[] {
  const { lagMs, lagBytes = 0, oldestTransactionPid: pid, oldestTransactionSeconds: seconds = 0 } = figures;
  if (lagMs < THRESHOLD.lag.value && lagBytes < THRESHOLD.lagBytes.value) return [];
  const isTransaction = pid !== undefined && seconds > 600;
  return [
    {
      message: `capture is late: ${Math.round(lagMs / 1000)} s, ${lagBytes} bytes of WAL are not confirmed`,
      remedy: isTransaction
        ? `A transaction of process ${pid} is open for ${Math.round(seconds / 60)} min: end it at its client.`
        : "Throttles ask for shards; a busy task for a larger one; none of both: a large transaction.",
      command: isTransaction ? `SELECT pg_terminate_backend(${pid});` : undefined,
    },
  ];
}

function ofState(task: CaptureTaskStatus, resources: PipelineResources): Words[] {
  const { state, failure } = task;
  if (state === "RUNNING" || state === "HOLDING") return [];
  if (state === "FAILED" && failure) return ofFailure(failure);
  return [wordsOfState(task, resources)];
}

/** Of several problems, as a preflight finds them, each has its own way out. */
function ofFailure(failure: NonNullable<CaptureTaskStatus["failure"]>): Words[] {
  return (failure.problems ?? [failure]).map(({ code, message, remedy }) => ({
    ...{ code, message: `ended: ${message}`, remedy },
    command: mendingIn(remedy) ?? `tributary explain ${code}`,
  }));
}

function wordsOfState(task: CaptureTaskStatus, resources: PipelineResources): Words {
  const { state, failure, slot } = task;
  const start = startCommand(slot, resources);
  switch (state) {
    case "WAITING":
      return wordsOfWait(task);
    case "PAUSED":
      return ofPausedCapture(task);
    case "STARTING":
      return {
        code: failure?.code,
        message: failure ? `starts again after: ${failure.message}` : "starts",
        remedy: failure?.remedy ?? "Wait until it runs.",
        command: "tributary status --watch",
      };
    case "SILENT":
      return {
        message: `no longer reports${task.reportedAt ? ` since ${task.reportedAt}` : ""}: it was killed, hangs, or cannot reach the state table`,
        remedy:
          "Start it again, if what runs it does not; its last lines of log say more. Until then nothing is captured.",
        command: start,
      };
    case "STOPPED":
      return { message: "was stopped in order, and does not run", remedy: "Start it again.", command: start };
    case "NEVER STARTED":
      return { message: "was never started here", remedy: "Start it.", command: start };
    case "UNREPORTED":
      return {
        message:
          "holds its lease, and does not report: it is of another version, or may not write to the state table",
        remedy: "Deploy this version, or look at its log.",
        command: start,
      };
    case "UNKNOWN":
      return {
        message: "its state could not be read",
        remedy: "See what could not be read, above.",
        command: "tributary doctor",
      };
    default:
      return { message: "ended with an error", remedy: "Look at its log.", command: start };
  }
}

/** Codes of waits that no error has begun: of the error that ends them. */
const WAIT_CODE: Readonly<Record<string, string>> = { lease: "CAPTURE_LEASE_HELD", slot: "SLOT_IN_USE" };

type Wait = Pick<CaptureTaskStatus, "waiting" | "slot"> & {
  readonly failure: Pick<CaptureFailure, "code" | "message" | "remedy"> | undefined;
};

/** Says for what a capture task waits, and what to do. */
export function wordsOfWait(task: Wait): Words {
  const { waiting, failure } = task;
  const why =
    waiting?.for === "restart" && failure ? failure.message : (waiting?.message ?? "it did not say why");
  return {
    code: waiting?.code ?? WAIT_CODE[waiting?.for ?? ""] ?? failure?.code,
    message: `waits for ${waiting?.for ?? "something"}: ${why.replace(/^waiting: /, "")}`,
    ...waitRemedy(task),
  };
}

/** By what the capture task calls the thing that it waits for. */
function waitRemedy({ waiting, failure, slot }: Wait): Pick<Words, "remedy" | "command"> {
  switch (waiting?.for) {
    case "restart":
      return {
        remedy: failure?.remedy ?? "It is started again by itself.",
        command: "tributary status --watch",
      };
    case "lease":
      return {
        remedy:
          "Another task has it. It comes free when that ends, or 15 s after it died; if both are meant to run, nothing heals this: stop one.",
        command: "tributary status --watch",
      };
    case "slot":
      return {
        remedy:
          "Another process reads from the slot. If it is not a capture task that ends by itself, end it.",
        command: processIn(waiting.message),
      };
    case "open transactions":
      return {
        remedy:
          "The new slot is made when every transaction that was open has ended. End those that take too long.",
        command:
          "SELECT pid, xact_start, application_name FROM pg_stat_activity WHERE backend_xid IS NOT NULL;",
      };
    case "deployment":
      return {
        remedy: "The slot is made when the stack's deployment is complete.",
        command: "tributary status --watch",
      };
    case "the first slot":
    case "tables to move":
      return {
        remedy: "The tasks of the other slots must run: see their lines.",
        command: "tributary status --watch",
      };
    default:
      return {
        remedy: `It goes on by itself when the ${waiting?.for ?? "other side"} answers again; nothing is lost meanwhile${slot ? ", and WAL is kept" : ""}.`,
        command: "tributary doctor",
      };
  }
}

function processIn(message: string): string {
  const [, pid] = /process (\d+)/.exec(message) ?? [];
  return pid === undefined
    ? "SELECT slot_name, active_pid FROM pg_replication_slots;"
    : `SELECT pg_terminate_backend(${pid});`;
}

function startCommand(slot: number, { captures, place }: PipelineResources): string | undefined {
  const task = captures.find((each) => each.slot === slot);
  if (task)
    return `aws ecs update-service --cluster ${task.cluster} --service ${task.service} --desired-count 1 --force-new-deployment`;
  return place.startsWith("tributary dev") ? "tributary dev" : undefined;
}

function ofTopics({ capture, captureDeadLetters }: Facts): StatusProblem[] {
  const { holds = [], unhealed = [], putAside = [], wanted = [] } = capture ?? {};
  return [
    ...holds.map(({ topic, reason, changes, released }) =>
      problem(`topic ${topic}`, {
        code: reason.code,
        message: `is held${released ? ", and about to be released" : ""}: ${reason.message}; ${changes} changes are stored`,
        remedy: reason.remedy,
        command: isOfIdentity(reason.code)
          ? (commandIn(reason.remedy) ?? `tributary capture release --topic ${shellWord(topic)}`)
          : `tributary capture release --topic ${shellWord(topic)}`,
      }),
    ),
    ...unhealed.map((entry) =>
      problem(`table ${entry.table}`, {
        severity: entry.asks ? "note" : "unhealthy",
        code: "UNHEALED",
        message: `changes may be missing in the stream: ${describe(entry)}`,
        remedy: healingRemedy(entry),
        command: entry.asks ? undefined : `tributary backfill start --table ${shellWord(entry.table)}`,
      }),
    ),
    ...putAside.map(({ table, position, code }) =>
      problem(`table ${table}`, {
        severity: "note",
        code,
        message: `the change at ${position} was put aside: it is a dead letter of capture, and the table is read again`,
        remedy: "Look at it in the dead-letter queue.",
        command: "tributary dlq list --capture",
      }),
    ),
    ...wanted.map((position) =>
      problem("capture", {
        severity: "note",
        message: `the change at ${position} is to be put aside when it comes`,
        remedy: `Nothing to do. To take that back: tributary capture dead-letter --cancel --at ${position}`,
      }),
    ),
    ...(captureDeadLetters
      ? [
          problem("capture", {
            message: `${counted(captureDeadLetters, "message is", "messages are")} in the dead-letter queue of capture: changes that could not become events`,
            remedy: "Look at them, correct what they lack by hand where it matters, and remove them.",
            command: "tributary dlq list",
          }),
        ]
      : []),
  ];
}

/** A queue that SQS does not know: what cannot be read for another reason is unknown, and no problem of its own. */
function ofQueues({ unknown }: Facts): StatusProblem[] {
  return unknown
    .filter(({ isMissing }) => isMissing)
    .map(({ part }) =>
      problem(part, {
        code: "DEAD_LETTER_QUEUE",
        message: "is not there: a change that fails for good cannot be kept, and holds its partition",
        remedy: "Doctor names it, and the command that makes it again.",
        command: "tributary doctor",
      }),
    );
}

function ofTables({ tables }: Facts): StatusProblem[] {
  return (tables ?? []).flatMap(({ table, backfill }) =>
    backfill?.status === "refused"
      ? [
          problem(`table ${table}`, {
            severity: "note",
            message: `its last backfill was refused${backfill.reason ? `: ${backfill.reason}` : ""}`,
            remedy: "Correct that, and ask for it again.",
            command: `tributary backfill start --table ${shellWord(table)}`,
          }),
        ]
      : [],
  );
}
