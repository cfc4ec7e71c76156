import { Command, InvalidArgumentError } from "commander";
import { ConfigurationError } from "../change/tributary-error.ts";
import { RedriveFailedError } from "../consume/dead-letter/dead-letter-errors.ts";
import {
  type RedrivenLetter,
  type RedriveReport,
  type RedriveRequest,
  readRedriveRequest,
} from "../consume/dead-letter/redrive-request.ts";

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
  const chosen = { tributary: "redrive", consumer, key, topic, position } as const;
  readRedriveRequest({ ...chosen, dryRun, discard }, consumer);
  const run = await redriveOf(options);
  const total = new Totals(options.limit);
  const tell = (report: RedriveReport) => {
    if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
    total.add(report);
  };
  if (dryRun) {
    const report = await run({ ...chosen, dryRun });
    if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
    else {
      for (const letter of report.letters) process.stdout.write(`${inWords(letter)}\n`);
      process.stdout.write(`${report.open + report.busy} keys have open dead letters\n`);
    }
    return;
  }
  // Each change by its position, so that a step whose answer is lost gives up nothing that it did not name.
  for (const named of discard ? await failedOnes(run, chosen) : []) {
    for (let again = true; again && total.left() > 0; ) {
      const limit = Math.min(STEP, total.left());
      const report = await run({ ...named, discard: true, limit });
      tell(report);
      // A function of an earlier version would give the next one up: once only.
      again = report.unhandled !== undefined && report.more && report.redriven > 0;
    }
  }
  for (;;) {
    if (total.left() === 0) break;
    const report = await run({ ...chosen, limit: Math.min(STEP, total.left()) });
    tell(report);
    const moved = report.redriven + report.done > 0;
    const more = report.more && moved && total.left() > 0;
    const told = report.letters.filter(
      ({ outcome, redriven }) => !more || outcome !== "open" || redriven > 0,
    );
    if (!json) for (const letter of told) process.stdout.write(`${inWords(letter)}\n`);
    if (more) continue;
    if (!json) process.stdout.write(`${total.inWords(report)}\n`);
    if (leftOver(report) > 0) process.exitCode = 1;
    return;
  }
  if (!json) process.stdout.write(`${total.inWords()}\n`);
}

/** The changes that failed among those that a request means, each named by its position. */
async function failedOnes(run: Redrive, chosen: RedriveRequest): Promise<RedriveRequest[]> {
  const { tributary, consumer, position } = chosen;
  const { letters, unhandled } = await run({ ...chosen, dryRun: true });
  return letters.flatMap((letter) => {
    const { outcome, topic, partition } = letter;
    // Functions of earlier versions name the change that began the key.
    const failed = letter.failed ?? (unhandled === undefined ? letter.position : undefined);
    const named = position ?? failed;
    return outcome === "open" && named ? [{ tributary, consumer, topic, partition, position: named }] : [];
  });
}

/** Sums the steps of a redrive. */
class Totals {
  readonly #limit: number;
  #redriven = 0;
  #discarded = 0;
  #done = 0;
  #superseded = 0;

  constructor(limit = Number.POSITIVE_INFINITY) {
    this.#limit = limit;
  }

  add({ redriven, discarded, done, superseded }: RedriveReport): void {
    this.#redriven += redriven;
    this.#discarded += discarded;
    this.#done += done;
    this.#superseded += superseded;
  }

  /** Changes that may still be redriven or given up. */
  left(): number {
    return Math.max(0, this.#limit - this.#redriven - this.#discarded);
  }

  /** `last`: the last step's report; missing where the limit was reached before it. */
  inWords(last?: RedriveReport): string {
    const parts = [`${this.#redriven} changes took effect`, `${this.#done} keys are parked no more`];
    const say = (count: number, what: string) => void (count > 0 && parts.push(`${count} ${what}`));
    say(this.#discarded, "changes given up");
    say(last?.failed ?? 0, "keys failed again");
    say((last?.open ?? 0) + (last?.busy ?? 0), "keys are left");
    say(last?.unhandled ?? 0, "keys have no handler");
    say(this.#superseded, "refused");
    return parts.join(", ");
  }
}

/** Functions of earlier versions do not tell `unhandled`. */
function leftOver({ failed, open, busy, unhandled = 0 }: Partial<RedriveReport>): number {
  return (failed ?? 0) + (open ?? 0) + (busy ?? 0) + unhandled;
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
      import("../aws/clients.ts"),
      import("../consume/dead-letter/redrive-function.ts"),
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

function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("write a whole number from 1.");
  return value;
}
