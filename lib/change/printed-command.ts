/*
 * Texts name commands as `tributary <verb> …`. Where a text is printed decides how that is typed: `tributary` itself is on nobody's PATH.
 */

/** How commands are typed where a text is read. */
export interface CommandPlace {
  /** What runs the command: `npx tributary-cdc`. */
  readonly program: string;
  /** The deployed stack that a verb is to speak to. */
  readonly stack?: string | undefined;
}

/** The variable that the CDK construct gives to the capture task and the functions: the name of their stack. */
export const STACK_VARIABLE = "TRIBUTARY_STACK_NAME";

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

/**
 * Returns how commands are typed for whoever reads what this process prints: by the package's own name where it is installed (the short
 * one is another package's); by the script in a clone of the repository; for a deployed stack with its name.
 */
export function commandPlace(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  file = import.meta.url,
): CommandPlace {
  const stack = environment[STACK_VARIABLE];
  const isClone = file.endsWith(".ts") && !file.includes("/node_modules/");
  return { program: isClone && !stack ? "npm run -s tributary --" : "npx tributary-cdc", stack };
}
