import { Command, InvalidArgumentError } from "commander";
import { RedriveFailedError } from "../consume/errors.ts";
import {
  type RedrivenLetter,
  type RedriveReport,
  type RedriveRequest,
  readRedriveRequest,
} from "../consume/redrive-request.ts";
import { ConfigurationError } from "../errors.ts";

interface RedriveOptions {
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

/** Brings some parked changes to effect, and tells. */
type Redrive = (request: RedriveRequest) => Promise<RedriveReport>;

/** Changes between two lines of progress. */
const STEP = 500;
/** Time of a step where the handler runs in this process, in milliseconds. */
const LOCAL_STEP_MS = 300_000;

/** `tributary redrive`: parked and skipped changes of a consumer take effect, in order. */
export function redriveCommand(): Command {
  return new Command("redrive")
    .description("bring parked changes of a consumer to effect, in order")
    .requiredOption("--consumer <name>", "the consumer, as the pipeline definition names it")
    .option(
      "--function <name>",
      "in AWS: its redrive function (the stack's output RedriveFunction-<consumer>)",
    )
    .option("--entry <file>", "here: its handler file, run in this process with this environment")
    .option("--key <values>", "only this key: 17, or 5,17 for two columns")
    .option("--topic <name>", "only this topic")
    .option("--position <position>", "only this change, as its dead letter names it")
    .option("--dry-run", "only tell what is open")
    .option(
      "--discard",
      "give up the change that failed, and go on with those behind it (with --key or --position)",
    )
    .option("--limit <n>", "end after this many changes", count)
    .option("--json", "print reports as JSON lines")
    .addHelpText(
      "after",
      `
Correct the handler and deploy it first. Changes are applied key by key, each in its order, while the stream goes on; a
change that fails again stays parked, and a redrive may be repeated and interrupted. What a later change has
superseded is refused. Exit code 1: something is left.

  tributary redrive --consumer orders --function Shop-RedriveOrders-X1 --dry-run
  TRIBUTARY_STATE_TABLE=… TRIBUTARY_PIPELINE_NAME=shop TRIBUTARY_DEAD_LETTER_QUEUE_URL=… \\
    tributary redrive --consumer orders --entry functions/orders.ts --key 17`,
    )
    .action(redrive);
}

async function redrive(options: RedriveOptions): Promise<void> {
  const { consumer, key, topic, position, dryRun, discard, json } = options;
  const chosen = { consumer, key, topic, position, dryRun, discard };
  readRedriveRequest({ tributary: "redrive", ...chosen }, consumer);
  const run = await redriveOf(options);
  const total = { redriven: 0, discarded: 0, done: 0, superseded: 0 };
  for (;;) {
    const done = total.redriven + total.discarded;
    const limit = dryRun ? undefined : Math.min(STEP, (options.limit ?? Number.POSITIVE_INFINITY) - done);
    // What was given up once is not given up again in the next step: those behind it come then.
    const report = await run({ tributary: "redrive", ...chosen, discard: discard && done === 0, limit });
    if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
    total.redriven += report.redriven;
    total.discarded += report.discarded;
    total.done += report.done;
    total.superseded += report.superseded;
    const moved = report.redriven + report.discarded + report.done > 0;
    const enough = total.redriven + total.discarded >= (options.limit ?? Number.POSITIVE_INFINITY);
    const more = report.more && moved && !enough;
    const told = report.letters.filter(
      ({ outcome, redriven }) => !more || outcome !== "open" || redriven > 0,
    );
    if (!json) for (const letter of told) process.stdout.write(`${inWords(letter)}\n`);
    if (more) continue;
    if (!json) process.stdout.write(`${summary(report, total, dryRun)}\n`);
    if (!dryRun && report.failed + report.open + report.busy > 0) process.exitCode = 1;
    return;
  }
}

async function redriveOf({ function: functionName, entry }: RedriveOptions): Promise<Redrive> {
  if ((functionName === undefined) === (entry === undefined)) {
    throw new ConfigurationError("The command line", [
      {
        path: "--function",
        value: functionName,
        remedy: "name the function in AWS with --function, or the handler's file with --entry",
      },
    ]);
  }
  if (functionName !== undefined) {
    const [{ lambdaClient }, { invokeRedrive }] = await Promise.all([
      import("../aws.ts"),
      import("../consume/redrive-function.ts"),
    ]);
    const lambda = await lambdaClient();
    return (request) => invokeRedrive(lambda, functionName, request);
  }
  return redriveHere(entry as string);
}

/** The handler in a process of its own: it may end it, and its lines are not ours. */
async function redriveHere(entry: string): Promise<Redrive> {
  const { startLambdaFunction } = await import("../local/lambda/host.ts");
  const environment = Object.entries(process.env).filter((variable): variable is [string, string] => {
    return variable[1] !== undefined;
  });
  return async (request) => {
    const here = await startLambdaFunction({
      entry,
      timeoutMs: LOCAL_STEP_MS,
      concurrency: 1,
      surroundings: Object.fromEntries(environment),
      onLog: (line) => process.stderr.write(`${line}\n`),
    });
    try {
      const result = await here.invoke(request);
      if (result.ok) return result.response as RedriveReport;
      const { type, message } = result.error;
      // Only of our own errors it is known that their message holds no row values.
      const ours = type === "ConfigurationError" || type === "FenceUnavailableError";
      throw new RedriveFailedError(entry, ours ? message : type);
    } finally {
      await here.stop();
    }
  };
}

function inWords({ topic, partition, key, position, outcome, redriven, ...letter }: RedrivenLetter): string {
  const facts = {
    done: `${redriven} took effect, parked no more`,
    failed: `failed again (${letter.error}, ${letter.attempts} calls)${redriven > 0 ? `, ${redriven} before it took effect` : ""}`,
    open:
      letter.parked === undefined
        ? `${redriven} took effect, more wait`
        : `${letter.parked} parked, first failed with ${letter.error} after ${letter.attempts} calls`,
    busy: "busy: another redrive, or a later change is on its way",
    superseded: "refused: a later change took effect",
  };
  return `${topic}/${partition} key ${key} at ${position}: ${facts[outcome]}`;
}

function summary(
  report: RedriveReport,
  total: { redriven: number; discarded: number; done: number; superseded: number },
  dryRun: boolean | undefined,
): string {
  if (dryRun) return `${report.open + report.busy} keys have open dead letters`;
  const parts = [`${total.redriven} changes took effect`, `${total.done} keys are parked no more`];
  if (total.discarded > 0) parts.push(`${total.discarded} changes given up`);
  if (report.failed > 0) parts.push(`${report.failed} keys failed again`);
  if (report.open + report.busy > 0) parts.push(`${report.open + report.busy} keys are left`);
  if (total.superseded > 0) parts.push(`${total.superseded} refused`);
  return parts.join(", ");
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("write a whole number from 1.");
  return value;
}
