import { awsFailure, REACH_AWS } from "../aws/failure.ts";
import { shellWord } from "../change/printed-command.ts";
import { defineError } from "../change/tributary-error.ts";
import { NEW_EPOCH_DROP_SLOT } from "../definition/new-epoch.ts";
import { type Pause, type PauseTarget, pausedBy, pausedName, resumeCommand } from "./pause.ts";

/** The lease stayed with another capture task until our deadline. */
export class CaptureLeaseHeldError extends defineError("CAPTURE_LEASE_HELD", "restart").from(
  (pipeline: string, owner: string, waitedMs: number) => ({
    message: `another capture task ("${owner}") holds the lease of pipeline "${pipeline}" and renewed it during ${Math.round(waitedMs / 1000)} s`,
    remedy: "Stop the other capture task; this one takes over within seconds after it has ended.",
  }),
) {}

/** A setting that decides where keys go differs from the one the pipeline started with (rule 2). */
export class StoredSettingChangedError extends defineError("STORED_SETTING_CHANGED", "stop").from(
  (pipeline: string, changes: readonly { setting: string; stored: string; now: string }[]) => {
    const lines = changes.map((c) => `  ${c.setting}: was ${c.stored}, is now ${c.now}`);
    return {
      message: `pipeline "${pipeline}" was started with other settings, and changing them would move keys between partitions and lose their order:\n${lines.join("\n")}`,
      remedy:
        "Put the settings back; tributary plan says whether all are. To change them, start a pipeline of another name beside this one, let its consumers catch up, then remove this one.",
    };
  },
) {}

/** The state table does not exist, has not the keys it must have, or may not be used by us. */
export class StateTableError extends defineError("STATE_TABLE", "stop") {}

/** The pipeline's items were written by a newer version, which an older command could misread. */
export class StateTableNewerError extends defineError("STATE_TABLE_NEWER", "stop").from(
  (table: string, pipeline: string, found: number, known: number) => ({
    message: `the state table "${table}" has items of the pipeline "${pipeline}" in format ${found}, and this version of tributary-cdc knows them up to ${known}`,
    remedy:
      "Use the version of tributary-cdc that the pipeline was deployed with: npm install tributary-cdc@latest in its project.",
  }),
) {}

/** The state table did not answer, or throttled us, until our deadline. */
export class StateTableUnavailableError extends defineError("STATE_TABLE_UNAVAILABLE", "restart").from(
  (table: string, cause: unknown) => ({
    message: `the state table "${table}" could not be used for a minute: DynamoDB: ${awsFailure(cause)}`,
    remedy: `Nothing to do when it passes: a task starts again and goes on, a command may be repeated. Otherwise look at DynamoDB's throttles, and ${REACH_AWS}.`,
    cause,
  }),
) {}

/** Consumers have checkpoints, and the capture task has no record: what it knew was lost or removed. */
export class StateLostError extends defineError("STATE_LOST", "stop").from(
  (pipeline: string, epoch: number) => ({
    message: `pipeline "${pipeline}" has no record of its slot, and its consumers have come as far as epoch ${epoch}: a start from nothing would write positions below theirs, which they drop`,
    remedy: `Restore the state table. Where that cannot be, begin a new epoch: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** The capture task's item names other items that are not there. */
export class CaptureRecordBrokenError extends defineError("CAPTURE_RECORD_BROKEN", "stop").from(
  (pipeline: string) => ({
    message: `the record of pipeline "${pipeline}" is incomplete: its settings or topics stand in items of the state table that are not there`,
    remedy: `Restore the state table. Where that cannot be, begin a new epoch: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** A backfill of the table is under way: one at a time. */
export class BackfillActiveError extends defineError("BACKFILL_ACTIVE", "stop").from(
  (table: string, status: string) => ({
    message: `a backfill of ${table} is under way (${status})`,
    remedy: `Wait for its end (tributary backfill status), or cancel it first: tributary backfill cancel --table ${shellWord(table)}`,
  }),
) {}

/** No backfill of the table is under way that could be paused, resumed or cancelled. */
export class BackfillNotActiveError extends defineError("BACKFILL_NOT_ACTIVE", "stop").from(
  (table: string, status: string | undefined) => ({
    message: `no backfill of ${table} is under way${status === undefined ? "" : `: the last one is ${status}`}`,
    remedy: `tributary backfill status shows them all; tributary backfill start --table ${shellWord(table)} begins one.`,
  }),
) {}

/** A topic is to be released that is not held. */
export class TopicNotHeldError extends defineError("TOPIC_NOT_HELD", "stop").from(
  (pipeline: string, topic: string, held: readonly string[]) => ({
    message: `the pipeline "${pipeline}" does not hold the topic ${topic}`,
    remedy: `Name one that \`tributary capture status\` lists: ${held.join(", ") || "none is held now"}.`,
  }),
) {}

/** An operator accepts that changes of a table may be missing, and none are. */
export class TableNotUnhealedError extends defineError("TABLE_NOT_UNHEALED", "stop").from(
  (pipeline: string, table: string, known: readonly string[]) => ({
    message: `the pipeline "${pipeline}" knows of no missing changes of ${table}`,
    remedy: `Name a table that \`tributary capture status\` lists: ${known.join(", ") || "there is none now"}.`,
  }),
) {}

/** Changes are to be put aside, and this task knows no queue for them. */
export class CaptureQueueMissingError extends defineError("CAPTURE_QUEUE_MISSING", "stop").from(
  (why: string) => ({
    message: `${why}, and this capture task's environment names no dead-letter queue`,
    remedy:
      "Set TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL to the URL of an SQS queue that the task may send to (the construct does both).",
  }),
) {}

/** Topics are held, and this task knows no claim store: it could neither store what comes nor release what is stored. */
export class HoldStoreMissingError extends defineError("HOLD_STORE_MISSING", "stop").from(
  (topics: readonly string[]) => ({
    message: `the pipeline holds ${topics.join(", ")}, and this capture task's environment names no claim store`,
    remedy:
      "Set TRIBUTARY_CLAIM_BUCKET to what it was: newer changes of these topics would overtake those that are stored there.",
  }),
) {}

/** Two operators pause the same: the second one is told of the first. */
export class PausedAlreadyError extends defineError("PAUSED_ALREADY", "stop").from(
  (pipeline: string, target: PauseTarget, pause: Pause) => ({
    message: `${pausedName(target)} of pipeline "${pipeline}" is paused already, ${pausedBy(pause)}`,
    remedy: `Nothing to do: it stays paused. Ask ${pause.by} before you resume it: ${resumeCommand(target)}`,
    pause,
  }),
) {}

/** What is to be resumed is not paused, or another operator has just resumed it. */
export class NotPausedError extends defineError("NOT_PAUSED", "stop").from(
  (pipeline: string, target: PauseTarget, anew?: Pause) => ({
    message: `${pausedName(target)} of pipeline "${pipeline}" ${anew ? `was resumed meanwhile, and is paused anew, ${pausedBy(anew)}` : "is not paused"}`,
    remedy: anew
      ? `Ask ${anew.by}, then repeat it: ${resumeCommand(target)}`
      : "Nothing to do: it is running, or waits for something else; tributary status tells.",
  }),
) {}
