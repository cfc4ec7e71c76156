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
}

/** Tells deployed code the name of its stack, for the commands that its errors name: the CDK construct sets it. */
export const STACK_VARIABLE = "TRIBUTARY_STACK_NAME";

/** Names the stack that the command's verbs speak to, of a shell or by `--stack`. */
export const CHOSEN_STACK_VARIABLE = "TRIBUTARY_STACK";

/** Verbs with verbs of their own, then those that a pipeline's stack says nothing to, then the rest. */
const COMMAND =
  /(?<![\w/@.-])tributary ((?:backfill|capture|consumer|dlq|epoch|generate|outbox|triggers) [a-z][a-z-]*|(cost|dev|explain|init|tail)\b|(?:doctor|plan|redrive|status|teardown|verify)\b)(?!-)/g;

/** Returns the text with its commands as they are typed in that place. A text that went through already stays as it is. */
export function withCommands(text: string, { program, stack }: CommandPlace): string {
  return text.replace(COMMAND, (_, verb: string, alone: string | undefined) => {
    const named = stack && alone === undefined ? ` --stack ${stack}` : "";
    return `${program} ${verb}${named}`;
  });
}

/** A text as one word of a command line. */
export function shellWord(text: string): string {
  return /^[\w.,/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
