import { Command } from "commander";
import { captureAtRest, pauseCapture, resumeCapture, type TaskAtRest } from "../admin/pause-capture.ts";
import { sourceKind } from "../source/index.ts";
import type { CaptureFigures } from "../state/capture-report.ts";
import { pausedBy, resumeCommand } from "../state/pause.ts";
import { durationInWords } from "./duration.ts";
import { byOption, operator, reasonOption } from "./operator.ts";
import { jsonOption, type PlaceOptions, placeOf, readPipeline, secondsOption, withPlace } from "./options.ts";
import { note, say } from "./say.ts";

interface PauseOptions extends PlaceOptions {
  readonly reason?: string;
  readonly by?: string;
  readonly timeout: number;
  readonly json?: boolean;
}

/** `tributary capture pause` and `resume`. */
export function capturePauseCommands(): Command[] {
  const pause = withPlace(
    new Command("pause").description(
      "have capture read nothing until it is resumed; the server keeps its log meanwhile",
    ),
  )
    .addOption(reasonOption())
    .addOption(byOption("pauses"))
    .addOption(
      secondsOption("--timeout <seconds>", "how long to wait until the tasks stand still", 0).default(60),
    )
    .addOption(jsonOption("one line"))
    .action(pauseAll);
  const resume = withPlace(new Command("resume").description("have paused capture go on where it stopped"))
    .addOption(jsonOption("one line"))
    .action(resumeAll);
  return [pause, resume];
}

async function pauseAll(options: PauseOptions): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const place = placeOf(pipeline, options);
  const kind = sourceKind(pipeline.source);
  const pause = await pauseCapture(place, { by: operator(options.by), reason: options.reason });
  note(
    `capture is paused. Its tasks give what they have read: waiting for ${options.timeout} s at most (Ctrl-C leaves it paused)`,
  );
  const slots = kind.tasks(pipeline.source);
  const tasks = await captureAtRest(place, slots, options.timeout * 1000);
  if (tasks.some(({ state }) => state !== undefined && state !== "PAUSED")) process.exitCode = 1;
  if (options.json) {
    const { id: _, ...told } = pause;
    say(JSON.stringify({ ...told, tasks }));
    return;
  }
  const isLog = kind.metrics === "slots";
  say(`Capture is paused, ${pausedBy(pause)}.`);
  for (const task of tasks)
    say(`${slots.length > 1 ? `slot ${task.slot}: ` : ""}${taskInWords(task, isLog)}`);
  say(
    isLog
      ? "What is changed waits in the server's log; the alarm SlotInactive rings, WalBudget and WalLoss when little is left."
      : "What is changed waits in its tables, which grow meanwhile; the alarm SourceDisconnected rings.",
    `To go on: ${resumeCommand("capture")}`,
  );
}

async function resumeAll(options: Pick<PauseOptions, keyof PlaceOptions | "json">): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const pause = await resumeCapture(placeOf(pipeline, options));
  const pausedMs = Math.max(0, Date.now() - pause.since);
  if (options.json) {
    const { id: _, ...told } = pause;
    say(JSON.stringify({ ...told, pausedMs }));
  } else
    say(
      `Capture goes on within 5 s, where it stopped. It was paused for ${durationInWords(pausedMs)}, ${pausedBy(pause)}.`,
    );
}

function taskInWords({ state, figures }: TaskAtRest, isLog: boolean): string {
  if (state === undefined) return "no task runs; one that starts stands still at once.";
  if (state === "UNREPORTED")
    return "a task holds the lease and says nothing of itself: it may go on. Where it is of an earlier version, which knows no pause, deploy this one or stop it.";
  if (state !== "PAUSED")
    return `the task does not stand still yet (${state}); it comes to rest when the stream has taken what it read: tributary status shows it.`;
  return `the task stands still.${isLog ? ` ${budgetInWords(figures)}` : ""}`;
}

/** Describes what is left of the log that the server keeps. */
export function budgetInWords(figures: CaptureFigures | undefined): string {
  const {
    maxSlotWalKeepBytes: most,
    safeWalBytes: safe,
    walHeldBytes: held,
    walLossSeconds: loss,
  } = figures ?? {};
  if (held === undefined)
    return "How much log the server keeps for it is not known yet: tributary status shows it.";
  if (safe === undefined)
    return `The server keeps ${megabytes(held)} of log for it, WITHOUT A BOUND (max_slot_wal_keep_size): it keeps all of it, until its disk is full. Watch its free space.`;
  const of = most === undefined || most < 0 ? "" : ` of max_slot_wal_keep_size, ${megabytes(most)},`;
  const forecast =
    loss === undefined
      ? "no loss is in sight"
      : `at the present rate the slot is lost in ${durationInWords(loss * 1000)}`;
  return `The server keeps ${megabytes(held)} of log for it;${of} ${megabytes(Math.max(0, safe))} are left before the slot is lost (${forecast}).`;
}

function megabytes(bytes: number): string {
  const mb = bytes / 1024 ** 2;
  return mb >= 10_240 ? `${Math.round(mb / 1024)} GB` : `${Math.ceil(mb)} MB`;
}
