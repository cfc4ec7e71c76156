import { type Command, Option } from "commander";
import { runRemotely } from "../admin/remote-task.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { pipelineOfStack } from "../admin/stack-resources.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import { note } from "./say.ts";
import { CHOSEN_STACK_VARIABLE, stackOf } from "./speak-to-stack.ts";

/** Options that choose the place: the task is in it. */
const OF_THE_PLACE = new Set(["stack", "profile", "region", "remote", "pipeline", "stateTable"]);

/** Signals that end this process, and so the task: Ctrl-C, SIGTERM, a terminal that is closed. */
const STOPPING = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** `--remote`. */
export function remoteOption(): Option {
  return new Option(
    "--remote",
    "with --stack: run as a one-off task in the capture task's network, for a database that is not reached from here",
  );
}

/** Further dependencies of a verb with `--remote`. */
export interface RemoteNeeds<Options> {
  /** Returns a task definition of the stack that can do more than the capture service's. */
  readonly taskDefinition?: (resources: PipelineResources, options: Options) => string;
  /** Tells what kept the task from running; default: the error is thrown. */
  readonly failed?: (error: unknown) => void;
}

/**
 * Gives a verb `--remote`: with it the verb runs as a one-off task of the stack, without it here. A verb that is given it stands in
 * `operate-program.ts` too.
 */
export function orRemote<Options extends object>(
  command: Command,
  action: (options: Options) => Promise<void>,
  needs: RemoteNeeds<Options> = {},
): Command {
  return command.addOption(remoteOption()).action(async (options: Options, self: Command) => {
    if (!(options as { readonly remote?: boolean }).remote) return await action(options);
    try {
      await runTask(self, (resources) => needs.taskDefinition?.(resources, options));
    } catch (error) {
      if (needs.failed === undefined) throw error;
      needs.failed(error);
    }
  });
}

/** Starts the task, prints what it prints, and ends as it does. */
async function runTask(
  command: Command,
  definitionOf: (resources: PipelineResources) => string | undefined,
): Promise<void> {
  const stack = process.env[CHOSEN_STACK_VARIABLE];
  const problems = problemsOf(command, stack);
  if (problems.length > 0 || stack === undefined) throw new ConfigurationError("The command line", problems);
  const resources = pipelineOfStack(await stackOf(stack, process.env), process.env.TRIBUTARY_PIPELINE_NAME);
  const taskDefinition = definitionOf(resources);
  const stopping = new AbortController();
  // Also at a second time: to end here before the task was asked to stop would leave it running.
  const stop = () => {
    note("stopping the task");
    stopping.abort();
  };
  for (const name of STOPPING) process.on(name, stop);
  // A terminal that is closed takes its streams along: the task is stopped all the same.
  const ignore = () => {};
  for (const stream of [process.stdout, process.stderr]) stream.on("error", ignore);
  try {
    process.exitCode = await runRemotely(resources, remoteArguments(command), {
      signal: stopping.signal,
      ...(taskDefinition !== undefined && { taskDefinition }),
      note,
      onLine: ({ stream, text, isEnd }) => void process[stream].write(isEnd ? `${text}\n` : text),
    });
  } finally {
    for (const name of STOPPING) process.removeListener(name, stop);
    for (const stream of [process.stdout, process.stderr]) stream.removeListener("error", ignore);
  }
}

function problemsOf(command: Command, stack: string | undefined): ConfigurationProblem[] {
  const problems: ConfigurationProblem[] = [];
  if (stack === undefined) {
    const remedy = "name the stack whose network it is to run in: --stack";
    problems.push({ path: "--stack", value: undefined, remedy });
  }
  // A password would stand in what ECS keeps of the task.
  if (command.getOptionValueSource("databaseUrl") === "cli") {
    const remedy = "leave it out with --remote: the task signs in to the pipeline's database as capture does";
    problems.push({ path: "--database-url", value: "…", remedy });
  }
  return problems;
}

/** Returns the words and options of a verb for the task: all that were given, but for those that choose the place. */
export function remoteArguments(command: Command): string[] {
  const words: string[] = [];
  for (let at: Command | null = command; at?.parent; at = at.parent) words.unshift(at.name());
  const options = command.options.flatMap((option) => {
    const name = option.attributeName();
    if (OF_THE_PLACE.has(name) || command.getOptionValueSource(name) !== "cli") return [];
    const value = command.getOptionValue(name) as unknown;
    // `--no-sweep` and `--sweep` have one name.
    if (typeof value === "boolean") return value === !option.negate ? [option.long ?? ""] : [];
    const values = Array.isArray(value) ? value : [value];
    return values.map((one) => `${option.long}=${String(one)}`);
  });
  return [...words, ...options, ...command.args];
}
