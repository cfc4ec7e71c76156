import { type Command, InvalidArgumentError, Option } from "commander";
import { dynamodbClient } from "../aws/clients.ts";
import { parseTable, type TableName } from "../change/table-pattern.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { readDefinition } from "../definition/file.ts";
import { findDefinition } from "../definition/find-definition.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/*
 * One option, one name and one wording in all verbs. A list takes commas and repetition: `--tables a,b --tables c`. Seconds are `--timeout`.
 */

/** `--pipeline`: the file of the definition; `readPipeline` finds it where the option is left out. */
export function pipelineOption(): Option {
  return new Option(
    "--pipeline <file>",
    "the pipeline definition (default: $TRIBUTARY_PIPELINE, tributary.config.ts here or above, or cdk/pipeline.ts)",
  );
}

/** `--state-table`. */
export function stateTableOption(): Option {
  return new Option("--state-table <name>", "the pipeline's state table (default: $TRIBUTARY_STATE_TABLE)");
}

/** `--stack`, `--profile`, `--region`: which AWS a verb speaks to. `placeProgram` adds them to verbs. */
export function awsOptions(): Option[] {
  return [
    new Option(
      "--stack <name>",
      "speak to the pipeline of this CloudFormation stack (default: $TRIBUTARY_STACK)",
    ),
    new Option(
      "--profile <name>",
      "credentials of this profile of the AWS CLI (default: $AWS_PROFILE, or what the SDK finds)",
    ),
    new Option("--region <name>", "the AWS region (default: $AWS_REGION, or the profile's)"),
  ];
}

/** `--database-url`; `whose` says which database, where that is not plain. */
export function databaseUrlOption(whose = "the database"): Option {
  return new Option(
    "--database-url <url>",
    `${whose}: postgres://user:password@host/database (default: $DATABASE_URL, or as the capture task finds it)`,
  );
}

/** `--consumer`. */
export function consumerOption(what = "the consumer, as the pipeline definition names it"): Option {
  return new Option("--consumer <name>", what);
}

/** `--table`: one. */
export function oneTableOption(what = "the table"): Option {
  return new Option("--table <name>", `${what}: public.orders`);
}

/** `--topic`: one. */
export function topicOption(what = "the topic"): Option {
  return new Option("--topic <name>", `${what}: shop.public.orders`);
}

/** `--json`; `shape` says what is printed. */
export function jsonOption(shape: string): Option {
  return new Option("--json", `print JSON: ${shape}`);
}

/** `--confirm`: without it, the command only shows what it would do. */
export function confirmOption(): Option {
  return new Option("--confirm <name>", "do it: the pipeline's name; without it, it is only shown");
}

/** `--limit`, a whole number from `least`. */
export function limitOption(what: string, least: 0 | 1, preset?: number): Option {
  const option = new Option("--limit <n>", what).argParser((text: string) => wholeNumber(text, least));
  return preset === undefined ? option : option.default(preset);
}

/** Seconds that something is waited for, from `least`. */
export function secondsOption(flags: string, what: string, least: 0 | 1): Option {
  return new Option(flags, what).argParser((text: string) => {
    const value = Number(text);
    if (text.trim() !== "" && value >= least && value < 1e6) return value;
    throw new InvalidArgumentError(`write a number of seconds, ${least} or more.`);
  });
}

/** A list of patterns, with commas or repeated. */
export function patternsOption(flags: string, what: string): Option {
  return new Option(flags, what).argParser((text: string, before?: readonly string[]) => {
    const patterns = text.split(",").map((pattern) => pattern.trim());
    if (patterns.includes(""))
      throw new InvalidArgumentError("write patterns such as public.orders,public.customers");
    return [...(before ?? []), ...patterns];
  });
}

function wholeNumber(text: string, least: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
  throw new InvalidArgumentError(`write a whole number from ${least}.`);
}

/** Reads the definition that `--pipeline` names, or the one that is found. @throws ConfigurationError */
export async function readPipeline(given: string | undefined): Promise<Pipeline> {
  const { file } = await findDefinition(given);
  return await readDefinition(file);
}

/** The options of verbs that work on a pipeline's state. */
export interface PlaceOptions {
  readonly pipeline?: string;
  readonly stateTable?: string;
  readonly stack?: string;
  readonly profile?: string;
  readonly region?: string;
}

/** Adds these options to a verb. */
export function withPlace(command: Command): Command {
  return command.addOption(pipelineOption()).addOption(stateTableOption());
}

/** The state of a pipeline, by these options. @throws ConfigurationError with all that is wrong, these problems too */
export function placeOf(
  { name: pipeline }: Pick<Pipeline, "name">,
  { stateTable = process.env.TRIBUTARY_STATE_TABLE }: PlaceOptions,
  problems: readonly ConfigurationProblem[] = [],
): StatePlace {
  const missing = stateTableMissing();
  const all = stateTable ? problems : [...problems, missing];
  if (all.length > 0) throw new ConfigurationError("The command line", all);
  const { signal } = new AbortController();
  return { dynamodb: dynamodbClient(), table: stateTable as string, pipeline, signal };
}

/** No state table is named. */
export function stateTableMissing(): ConfigurationProblem {
  const remedy =
    "name the stack with --stack, or the pipeline's state table; in a project's folder the verbs find its tributary dev";
  return { path: "--state-table", value: undefined, remedy };
}

/** A consumer that the definition does not have. */
export function unknownConsumer(
  value: string,
  { consumers }: Pick<Pipeline, "consumers">,
): ConfigurationProblem {
  const names = consumers.map(({ name }) => name).join(", ");
  return { path: "--consumer", value, remedy: `name one of the definition's: ${names || "it has none"}` };
}

/** The table that `--table` names. @throws ConfigurationError */
export function tableOption(text: string): TableName {
  try {
    return parseTable(text);
  } catch {
    const remedy = 'write one table: public.orders, or public."Odd.Name"';
    throw new ConfigurationError("The command line", [{ path: "--table", value: text, remedy }]);
  }
}
