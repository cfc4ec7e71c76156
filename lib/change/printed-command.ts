/*
 * Texts name commands as `tributary <verb> …`. Where a text is printed decides how that is typed: `tributary` itself is on nobody's PATH.
 */

/** What runs the command in a project that has the package, and fetches it where it is not installed. */
export const PROGRAM = "npx tributary-cdc";

/** How commands are typed where a text is read. */
export interface CommandPlace {
  /** What runs the command: `npx tributary-cdc`. */
  readonly program: string;
  /** The deployed stack that a verb is to speak to. */
  readonly stack?: string | undefined;
  /** Options of the command line that say which AWS that is, to be typed again: `--profile prod --region eu-west-1`. */
  readonly aws?: string | undefined;
}

/** Tells deployed code the name of its stack, for the commands that its errors name: the CDK construct sets it. */
export const STACK_VARIABLE = "TRIBUTARY_STACK_NAME";

/** Holds `CommandPlace.aws` for the run of a verb. */
export const AWS_OPTIONS_VARIABLE = "TRIBUTARY_AWS_OPTIONS";

/** Names the stack that the command's verbs speak to, of a shell or by `--stack`. */
export const CHOSEN_STACK_VARIABLE = "TRIBUTARY_STACK";

/** Verbs with verbs of their own, then those that a pipeline's stack says nothing to, then the rest. */
const COMMAND =
  /(?<![\w/@.-])tributary ((?:backfill|capture|consumer|dlq|epoch|generate|outbox|triggers) [a-z][a-z-]*|(cost|dev|explain|init|tail)\b|(?:doctor|plan|redrive|status|teardown|verify)\b)(?!-)/g;

/** Commands of the AWS CLI that texts name, and that do not say yet where. */
const OF_AWS_CLI = /\baws (?:dynamodb|ecs|kinesis|lambda|logs) [a-z-]+(?![\w-]| --(?:profile|region))/g;

/** Returns the text with its commands as they are typed in that place. A text that went through already stays as it is. */
export function withCommands(text: string, { program, stack, aws }: CommandPlace): string {
  const typed = text.replace(COMMAND, (_, verb: string, alone: string | undefined) => {
    const named = stack && alone === undefined ? ` --stack ${stack}${aws ? ` ${aws}` : ""}` : "";
    return `${program} ${verb}${named}`;
  });
  return aws ? typed.replace(OF_AWS_CLI, `$& ${aws}`) : typed;
}

/** A text as one word of a command line. */
export function shellWord(text: string): string {
  return /^[\w.,/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
