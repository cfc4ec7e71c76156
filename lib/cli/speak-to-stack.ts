import type { Command } from "commander";
import { environmentOf } from "../admin/environment-resources.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { type DeployedStack, pipelineOfStack, readStack } from "../admin/stack-resources.ts";
import type { Environment } from "../aws/clients.ts";
import {
  AWS_OPTIONS_VARIABLE,
  CHOSEN_STACK_VARIABLE,
  STACK_VARIABLE,
  shellWord,
} from "../change/printed-command.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import { readDefinition } from "../definition/file.ts";
import { findDefinition } from "../definition/find-definition.ts";
import { note } from "./say.ts";

export { CHOSEN_STACK_VARIABLE };

type Variables = Record<string, string | undefined>;

/** A verb asks for its stack when it is chosen, and again in its action. */
const read = new Map<string, Promise<DeployedStack>>();

/** Reads a stack, once in a run of the command. @throws the errors of `readStack` */
export async function stackOf(stack: string, environment: Environment): Promise<DeployedStack> {
  const reading = read.get(stack) ?? readStack(stack, { environment });
  read.set(stack, reading);
  reading.catch(() => read.delete(stack));
  return await reading;
}

/**
 * Has AWS's clients take the profile and the region of the command line, as the AWS CLI does: a profile is stronger than keys in variables.
 */
export function chooseAws(command: Command, environment: Variables): void {
  const { profile, region } = command.opts<{ profile?: string; region?: string }>();
  if (profile !== undefined) {
    environment.AWS_PROFILE = profile;
    for (const name of ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"])
      delete environment[`AWS_${name}`];
  }
  if (region !== undefined) environment.AWS_REGION = region;
  // What a shell chose by variables is chosen there still; options are to be typed again.
  const typed = [
    ...(profile === undefined ? [] : ["--profile", shellWord(profile)]),
    ...(region === undefined ? [] : ["--region", shellWord(region)]),
  ];
  if (typed.length > 0) environment[AWS_OPTIONS_VARIABLE] = typed.join(" ");
}

/**
 * Has a verb speak to the stack of `--stack` or of TRIBUTARY_STACK: the environment gets what names its pipeline's resources, and the
 * options of a redrive its function.
 *
 * @returns false where neither names one, or where options name another place than the variable.
 * @throws ConfigurationError where the command line or the environment contradicts itself; the errors of `readStack`, `pipelineOfStack`.
 */
export async function speakToStack(command: Command, environment: Variables): Promise<boolean> {
  const options = command.opts<StackOptions>();
  const isNamed = options.stack !== undefined;
  const name = options.stack ?? (environment[CHOSEN_STACK_VARIABLE] || undefined);
  if (name === undefined) return false;
  if (!isNamed && (options.stateTable !== undefined || options.function !== undefined)) {
    note(
      `${CHOSEN_STACK_VARIABLE} is set, but the command line names another place: this does not speak to ${name}`,
    );
    delete environment[CHOSEN_STACK_VARIABLE];
    return false;
  }
  checkRegion(name, options.region);
  const stack = await stackOf(name, environment);
  const resources = pipelineOfStack(stack, await nameOfDefinition(options.pipeline));
  const problems = contradictions(resources, stack.region, options, environment, isNamed);
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  note(`speaking to pipeline ${resources.pipeline} of stack ${stack.name} in ${stack.region}`);
  for (const [name, value] of Object.entries(environmentOf(resources))) {
    if (value === undefined) delete environment[name];
    else environment[name] = value;
  }
  environment[CHOSEN_STACK_VARIABLE] = name;
  // Commands that are printed from here on name it too.
  environment[STACK_VARIABLE] = stack.name;
  environment.AWS_REGION = stack.region;
  if (command.name() === "redrive" && command.parent?.parent == null)
    nameRedrive(command, resources, options, environment);
  return true;
}

interface StackOptions {
  readonly stack?: string;
  readonly region?: string;
  readonly pipeline?: string;
  readonly stateTable?: string;
  readonly function?: string;
  readonly entry?: string;
  readonly consumer?: string;
}

/** An ARN has a region of its own. */
function checkRegion(stack: string, region: string | undefined): void {
  const own = /^arn:[\w-]+:cloudformation:([\w-]+):/.exec(stack)?.[1];
  if (own === undefined || region === undefined || own === region) return;
  const remedy = `the stack of that ARN is in ${own}: leave --region out`;
  throw new ConfigurationError("The command line", [{ path: "--region", value: region, remedy }]);
}

/** Returns the name of the definition here; undefined where there is none. @throws ConfigurationError for one that is not valid */
async function nameOfDefinition(given: string | undefined): Promise<string | undefined> {
  const place = await findDefinition(given).catch((error: unknown) => {
    if (given !== undefined) throw error;
    return undefined;
  });
  return place && (await readDefinition(place.file)).name;
}

/** A verb must not work on a table of one place and on queues of another. */
function contradictions(
  { stateTable, stack, consumers }: PipelineResources,
  region: string,
  options: StackOptions,
  environment: Variables,
  isNamed: boolean,
): ConfigurationProblem[] {
  const problems: ConfigurationProblem[] = [];
  const differs = (path: string, value: string, is: string | undefined) =>
    void problems.push({
      path,
      value,
      remedy: `the stack ${stack} has ${is ?? "none"}: leave it out, or leave the stack out`,
    });
  if (options.stateTable !== undefined && options.stateTable !== stateTable)
    differs("--state-table", options.stateTable, stateTable);
  const variable = environment.TRIBUTARY_STATE_TABLE;
  if (variable && variable !== stateTable) {
    // An option is stronger than a variable; of two variables nobody knows which is meant.
    if (isNamed) note(`$TRIBUTARY_STATE_TABLE (${variable}) does not count: --stack names another place`);
    else differs("$TRIBUTARY_STATE_TABLE", variable, stateTable);
  }
  const { function: given, consumer } = options;
  const own = consumer === undefined ? undefined : consumers[consumer]?.redriveFunction;
  if (given !== undefined && given !== own && !isFunction(given, own, region))
    differs("--function", given, own);
  return problems;
}

/** A function's ARN says its region, too. */
function isFunction(given: string, name: string | undefined, region: string): boolean {
  return given.startsWith("arn:") && given.endsWith(`:function:${name}`) && given.split(":")[3] === region;
}

/** Dead letters are tried by the stack's function, or by `--entry` here. */
function nameRedrive(
  command: Command,
  { consumers, stack }: PipelineResources,
  { consumer = "", entry }: StackOptions,
  environment: Variables,
): void {
  const resources = consumers[consumer];
  if (resources === undefined) {
    const names = Object.keys(consumers).join(", ");
    const remedy = `name a consumer of the stack ${stack}: ${names || "it has none"}`;
    throw new ConfigurationError("The command line", [{ path: "--consumer", value: consumer, remedy }]);
  }
  // To a process's environment `undefined` is a text.
  if (resources.deadLetterQueue === undefined) delete environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL;
  else environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL = resources.deadLetterQueue;
  if (entry === undefined) command.setOptionValue("function", resources.redriveFunction);
}
