import { Command } from "commander";
import {
  leftKeys,
  openDeadLetters,
  type Redrive,
  type RedriveTotals,
  redrive,
  redriveFunction,
} from "../admin/redrive.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { RedriveFailedError } from "../consume/dead-letter/dead-letter-errors.ts";
import { pausedError } from "../consume/dead-letter/redrive-function.ts";
import type { RedrivenLetter, RedriveReport } from "../consume/dead-letter/redrive-request.ts";
import { consumerOption, jsonOption, limitOption, pipelineOption, topicOption } from "./options.ts";

interface RedriveArguments {
  readonly consumer: string;
  readonly function?: string;
  readonly entry?: string;
  readonly key?: string;
  readonly topic?: string;
  readonly position?: string;
  readonly dryRun?: boolean;
  readonly discard?: boolean;
  readonly limit?: number;
  readonly json?: boolean;
}

/** Time of a step where the handler runs in this process, in milliseconds. */
const LOCAL_STEP_MS = 300_000;

/** `tributary redrive`: parked and skipped changes of a consumer take effect, in order. */
export function redriveCommand(): Command {
  return new Command("redrive")
    .description("bring parked changes of a consumer to effect, in order")
    .addOption(consumerOption().makeOptionMandatory())
    .addOption(pipelineOption())
    .option("--function <name>", "in AWS: its redrive function (default: with --stack that of the stack)")
    .option("--entry <file>", "here: its handler file, run in this process with this environment")
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
superseded is refused. Exit code 1: something is left.

  tributary redrive --consumer orders --stack Shop --dry-run
  TRIBUTARY_STATE_TABLE=… TRIBUTARY_PIPELINE_NAME=shop TRIBUTARY_DEAD_LETTER_QUEUE_URL=… \\
    tributary redrive --consumer orders --entry functions/orders.ts --key 17`,
    )
    .action(redriveParked);
}

async function redriveParked(options: RedriveArguments): Promise<void> {
  const { consumer, key, topic, position, dryRun, discard, limit, json } = options;
  const choice = { consumer, key, topic, position };
  const run = await redriveOf(options);
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

async function redriveOf(options: RedriveArguments): Promise<Redrive> {
  const { function: functionName, entry } = options;
  if ((functionName === undefined) === (entry === undefined)) {
    throw new ConfigurationError("The command line", [
      {
        path: "--function",
        value: functionName,
        remedy:
          "name the stack with --stack, the function in AWS with --function, or the handler's file with --entry",
      },
    ]);
  }
  if (functionName !== undefined) return await redriveFunction(functionName);
  return redriveHere(entry as string, options);
}

/**
 * The handler in a process of its own: it may end it, and its lines are not ours. What it throws is told with message and stack,
 * whatever the definition says of the log in AWS: here somebody looks, and nobody keeps it.
 */
async function redriveHere(entry: string, { consumer, json }: RedriveArguments): Promise<Redrive> {
  const { startLambdaFunction } = await import("../local/lambda/host.ts");
  const { HandlerReports } = await import("../local/handler-reports.ts");
  const environment = Object.entries({ TRIBUTARY_LOG_ERRORS: "true", ...process.env }).filter(
    (variable): variable is [string, string] => variable[1] !== undefined,
  );
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const reports = new HandlerReports({ consumer, canRedrive: true, print: say });
  return async (request) => {
    const here = await startLambdaFunction({
      entry,
      timeoutMs: LOCAL_STEP_MS,
      concurrency: 1,
      surroundings: Object.fromEntries(environment),
      sourceMaps: true,
      onLog: (line) => {
        if (json || !reports.take(line)) say(line);
      },
    });
    try {
      const result = await here.invoke(request);
      if (result.ok) return result.response as RedriveReport;
      const { type, message } = result.error;
      const paused = pausedError(type, message);
      if (paused) throw paused;
      // Only of our own errors it is known that their message holds no row values.
      const ours = type === "ConfigurationError" || type === "FenceUnavailableError";
      throw new RedriveFailedError(entry, ours ? message : type);
    } finally {
      await here.stop();
      reports.close();
    }
  };
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
