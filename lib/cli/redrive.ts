import { Command } from "commander";
import { clearMended } from "../admin/dead-letters/mended.ts";
import type { DeadLetterPlace } from "../admin/dead-letters/place.ts";
import { leftKeys, openDeadLetters, type RedriveTotals, redrive } from "../admin/redrive.ts";
import { TributaryError } from "../change/tributary-error.ts";
import type { RedrivenLetter, RedriveReport } from "../consume/dead-letter/redrive-request.ts";
import { consumerOption, jsonOption, limitOption, topicOption, withPlace } from "./options.ts";
import { type RedriveRunOptions, redriveSceneOf } from "./redrive-run.ts";
import { note } from "./say.ts";

/** The options of a redrive. */
export interface RedriveArguments extends RedriveRunOptions {
  readonly key?: string;
  readonly topic?: string;
  readonly position?: string;
  readonly dryRun?: boolean;
  readonly discard?: boolean;
  readonly limit?: number;
}

/** Adds the options that say by what code changes are brought to effect. */
export function withRedriver(command: Command): Command {
  return command
    .option("--function <name>", "in AWS: its redrive function (default: with --stack that of the stack)")
    .option("--entry <file>", "here: its handler file, run in this process with this environment");
}

/** `tributary redrive`, and the same as `tributary dlq redrive`: parked and skipped changes of a consumer take effect, in order. */
export function redriveCommand(): Command {
  return withRedriver(
    withPlace(new Command("redrive").description("bring parked changes of a consumer to effect, in order")),
  )
    .addOption(consumerOption().makeOptionMandatory())
    .option("--key <values>", "only this key: 17, or 5,17 for two columns")
    .addOption(topicOption("only this topic"))
    .option("--position <position>", "only this change, as its dead letter names it")
    .option("--dry-run", "only tell what is open")
    .option(
      "--discard",
      "give up the change that failed, and go on with those behind it (with --key or --position)",
    )
    .addOption(limitOption("end after this many changes", 1))
    .addOption(jsonOption("a line for each report"))
    .addHelpText(
      "after",
      `
Correct the handler and deploy it first. Changes are applied key by key, each in its order, while the stream goes on; a
change that fails again stays parked, and a redrive may be repeated and interrupted. What a later change has
superseded is refused. Messages of the dead-letter queue whose changes are through are deleted, so that its alarm goes
quiet. Exit code 1: something is left.

  tributary redrive --consumer orders --stack Shop --dry-run
  TRIBUTARY_STATE_TABLE=… TRIBUTARY_PIPELINE_NAME=shop TRIBUTARY_DEAD_LETTER_QUEUE_URL=… \\
    tributary redrive --consumer orders --entry functions/orders.ts --key 17`,
    )
    .action((options: RedriveArguments) => redriveParked(options));
}

/** Redrives, prints what became of each key, and takes the messages from the queue whose changes are through. */
export async function redriveParked(
  options: RedriveArguments,
  { onTotals }: { readonly onTotals?: (totals: RedriveTotals) => void } = {},
): Promise<void> {
  const { consumer, key, topic, position, dryRun, discard, limit, json } = options;
  const choice = { consumer, key, topic, position };
  const { run, place } = await redriveSceneOf(options);
  if (dryRun) {
    const report = await openDeadLetters(run, choice);
    if (json) sayReport(report);
    else {
      for (const letter of report.letters) process.stdout.write(`${inWords(letter)}\n`);
      process.stdout.write(`${report.open + report.busy} keys have open dead letters\n`);
    }
    return;
  }
  const totals = await redrive(run, choice, {
    ...{ discard, limit },
    onStep: (report, { more, discards }) => {
      if (json) return sayReport(report);
      if (discards) return;
      const told = report.letters.filter(
        ({ outcome, redriven }) => !more || outcome !== "open" || redriven > 0,
      );
      for (const letter of told) process.stdout.write(`${inWords(letter)}\n`);
    },
  });
  if (!json) process.stdout.write(`${totalsInWords(totals)}\n`);
  if (leftKeys(totals) > 0) process.exitCode = 1;
  onTotals?.(totals);
  await clearQueue(place, options);
}

/**
 * Deletes the messages whose changes are through. What took effect has taken effect whatever becomes of that, so a queue that refuses is only
 * told of. With `--json`, standard error is the handler's log alone, but for a failure.
 */
async function clearQueue(
  place: DeadLetterPlace | undefined,
  { consumer, json }: RedriveArguments,
): Promise<void> {
  const tell = (line: string) => void (json || note(line));
  const again = `tributary dlq redrive --consumer ${consumer} clears them`;
  try {
    const cleared = place && (await clearMended(place, consumer));
    if (cleared === undefined)
      return tell(
        "the dead-letter queue was left alone, and its alarm rings on: nothing here names it (--stack, or TRIBUTARY_STATE_TABLE and TRIBUTARY_DEAD_LETTER_QUEUE_URL)",
      );
    const { removed, left, more } = cleared;
    if (removed === 1) tell("1 message whose change is through was deleted from the dead-letter queue");
    else if (removed > 0)
      tell(`${removed} messages whose changes are through were deleted from the dead-letter queue`);
    if (left > 0)
      tell(
        `${left} ${left === 1 ? "message stays" : "messages stay"} in the dead-letter queue: tributary dlq list --consumer ${consumer}`,
      );
    if (more) tell(`not all messages of the dead-letter queue could be seen: ${again}`);
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    process.exitCode = 1;
    note(`messages whose changes are through may still be in the dead-letter queue: ${error.message}`);
    note(`what to do: ${error.remedy} Then ${again}.`);
  }
}

function sayReport(report: RedriveReport): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

function totalsInWords(totals: RedriveTotals): string {
  const parts = [`${totals.redriven} changes took effect`, `${totals.done} keys are parked no more`];
  const say = (count: number, what: string) => void (count > 0 && parts.push(`${count} ${what}`));
  say(totals.discarded, "changes given up");
  say(totals.failed, "keys failed again");
  say(totals.open + totals.busy, "keys are left");
  say(totals.unhandled, "keys have no handler");
  say(totals.superseded, "refused");
  return parts.join(", ");
}

function inWords(letter: RedrivenLetter): string {
  const { topic, partition, key, position, failed, outcome, redriven, attempts, error } = letter;
  const facts = {
    done: `${redriven} took effect, parked no more`,
    failed: `failed again (${error}, ${attempts} calls)${redriven > 0 ? `, ${redriven} before it took effect` : ""}`,
    open:
      letter.parked === undefined
        ? `${redriven} took effect, more wait`
        : `${letter.parked} parked, ${failed === undefined ? "none failed since the last that took effect" : `first failed with ${error} after ${attempts} calls`}`,
    busy:
      error === "HoldAtWorkError"
        ? "busy: an invocation or another redrive applies it; where that one died, repeat this in 30 s"
        : "busy: another redrive, or a later change is on its way",
    unhandled: "no handler is registered for it (any more): it stays parked",
    superseded: "refused: a later change took effect",
  };
  return `${topic}/${partition} key ${key} at ${failed ?? position}: ${facts[outcome]}`;
}
