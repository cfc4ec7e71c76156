import { resumeCommand } from "../state/pause.ts";
import { PAUSE_RETENTION_PERCENT } from "../telemetry/alarms.ts";
import type { CaptureTaskStatus, ConsumerSummary, Pausing, StatusProblem } from "./pipeline-status.ts";
import type { RetentionLeft } from "./retention-left.ts";

/* What a status says of pauses: who paused, what is left before changes are lost, and how to go on. */

/** A problem without the part that it is about. */
export type ProblemWords = Pick<StatusProblem, "message" | "remedy"> & Partial<StatusProblem>;

/** What ends the loss of a budget that a pause uses up. */
export const RESUME_NOW = {
  remedy: "Let capture go on now, or raise max_slot_wal_keep_size if the disk allows.",
  command: resumeCommand("capture"),
};

/** Describes the pause of a capture task, with what is left of the WAL budget where it reads a slot. */
export function ofPausedCapture({
  paused,
  state,
  figures,
  walBudgetLeftPercent: left = 0,
}: CaptureTaskStatus): ProblemWords {
  const comes = state === "PAUSED" ? "" : "; the task comes to rest";
  const words = { message: `is paused${byWhom(paused)}${comes}`, command: resumeCommand("capture") };
  if (figures?.walHeldBytes === undefined)
    return {
      ...words,
      remedy: "What is changed waits at the server meanwhile. Let it go on when that may be.",
    };
  if (figures.safeWalBytes === undefined)
    return {
      ...words,
      message: `${words.message}; the server keeps WAL for it WITHOUT A BOUND (max_slot_wal_keep_size), until its disk is full`,
      remedy: "Watch the server's free space. Let it go on before that runs out.",
    };
  return {
    ...words,
    message: `${words.message}; ${Math.floor(left)}% of the WAL budget is left`,
    remedy: "The server keeps WAL meanwhile. Let it go on before that runs out.",
  };
}

/** Describes the pause of a consumer with what is left of the stream's retention, and near its end that again as a problem of its own. */
export function ofPausedConsumer(
  { name, retention }: ConsumerSummary,
  paused: Pausing,
): readonly ProblemWords[] {
  const words = { message: `is paused${byWhom(paused)}`, command: resumeCommand({ consumer: name }) };
  if (!retention)
    return [
      {
        ...words,
        remedy: "The stream keeps records for its retention only. Let it go on before that is over.",
      },
    ];
  const { leftMs, ageMs, usedPercent, retentionHours } = retention;
  const end = new Date(retention.oldestAt + retentionHours * 3_600_000).toISOString();
  const found: ProblemWords[] = [
    {
      ...words,
      message: `${words.message}; ${span(leftMs)} of the stream's retention of ${retentionHours} h are left`,
      remedy: `Its oldest change that waits is about ${span(ageMs)} old, and the stream keeps that until ${end}. Let it go on before then.`,
    },
  ];
  if (usedPercent >= PAUSE_RETENTION_PERCENT) found.push({ ...endOf(retention), command: words.command });
  return found;
}

function endOf({ usedPercent, leftMs }: RetentionLeft): Pick<ProblemWords, "message" | "remedy"> {
  const more = "To win time raise stream.retentionHours and deploy.";
  return leftMs > 0
    ? {
        message: `has used up ${Math.floor(usedPercent)}% of the stream's retention: beyond it, changes that it has not applied are gone`,
        remedy: `Let it go on now. ${more}`,
      }
    : {
        message:
          "the stream's retention is over: changes that it has not applied may be gone, and it will stand before a gap",
        remedy: `Let it go on now; then accept the gap, and its rows are read again. ${more}`,
      };
}

/** Describes who paused something, when and why. */
function byWhom(paused: Pausing | undefined): string {
  return paused
    ? ` by ${paused.by} since ${paused.since}${paused.reason ? ` ("${paused.reason}")` : ""}`
    : "";
}

/** Hours, or minutes where it is less than two of them; rounded down. */
function span(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}
