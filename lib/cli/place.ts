import type { Command } from "commander";
import { dynamodbClient } from "../aws/clients.ts";
import { awsFailure } from "../aws/failure.ts";
import { checkStateFormat } from "../state/state-format.ts";
import { awsOptions, type PlaceOptions, readPipeline } from "./options.ts";
import { note } from "./say.ts";
import { speakToDev } from "./speak-to-dev.ts";
import { chooseAws, speakToStack } from "./speak-to-stack.ts";
import { verbOf } from "./verb-of.ts";

/** Verbs that ask the state of a pipeline, of a stack or of `tributary dev`; `tail`, `cost` and what makes projects do not. */
export const VERBS: readonly string[] = [
  "consumer",
  "dlq",
  "redrive",
  "backfill",
  "plan",
  "generate",
  "capture",
  "outbox",
  "epoch",
  "verify",
  "triggers",
  "teardown",
  "doctor",
  "status",
];

/** Adds `--stack`, `--profile` and `--region` to the verbs of a program that ask the pipeline's state, and has each speak to its place. */
export function placeProgram(program: Command): Command {
  const leaves = (command: Command): Command[] =>
    command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
  for (const verb of program.commands.filter((command) => VERBS.includes(command.name())))
    for (const command of leaves(verb)) for (const option of awsOptions()) command.addOption(option);
  return program.hook("preAction", (_, command) => speakToPlace(command));
}

/**
 * Has a verb speak to the stack that it names, else to the `tributary dev` that runs in this folder, else to what variables and options
 * name: the environment is added to, and the verb's options.
 * @throws ConfigurationError where options contradict each other; the errors of `readStack`, `pipelineOfStack`.
 */
export async function speakToPlace(
  command: Command,
  { folder = process.cwd(), environment = process.env as Record<string, string | undefined> } = {},
): Promise<void> {
  if (!VERBS.includes(verbOf(command))) return;
  chooseAws(command, environment);
  if (!(await speakToStack(command, environment))) await speakToDev(command, { folder, environment });
  // Doctor tells it among the rest.
  if (verbOf(command) !== "doctor") await checkFormat(command, environment);
}

/** @throws StateTableNewerError */
async function checkFormat(command: Command, environment: Record<string, string | undefined>): Promise<void> {
  const given = command.opts<PlaceOptions>();
  const table = given.stateTable ?? environment.TRIBUTARY_STATE_TABLE;
  if (!table) return;
  const named = environment.TRIBUTARY_PIPELINE_NAME;
  // A definition that is not valid is told by the verb.
  const pipeline = named || (await readPipeline(given.pipeline).catch(() => undefined))?.name;
  if (!pipeline) return;
  const { signal } = new AbortController();
  await checkStateFormat({ dynamodb: dynamodbClient(environment), table, pipeline, signal }, (error) =>
    note(
      `the state table ${table} does not answer: ${awsFailure(error)}; it is tried again, for a minute at most`,
    ),
  );
}
