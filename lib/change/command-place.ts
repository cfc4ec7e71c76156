import {
  AWS_OPTIONS_VARIABLE,
  CHOSEN_STACK_VARIABLE,
  type CommandPlace,
  PROGRAM,
  STACK_VARIABLE,
} from "./printed-command.ts";

/* Apart from printed-command.ts, which handlers have in their bundles: `import.meta` is not in every kind of one. */

/**
 * Returns how commands are typed for whoever reads what this process prints: by the package's own name where it is installed (the short
 * one is another package's); by the script in a clone of the repository; for a deployed stack with its name.
 */
export function commandPlace(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  file = import.meta.url,
): CommandPlace {
  const chosen = environment[CHOSEN_STACK_VARIABLE];
  const stack = environment[STACK_VARIABLE] || chosen || undefined;
  // The name alone is of deployed code; a command that speaks to a stack was given one.
  const isHere = stack === undefined || Boolean(chosen);
  const isClone = isHere && file.endsWith(".ts") && !file.includes("/node_modules/");
  const aws = environment[AWS_OPTIONS_VARIABLE];
  return { program: isClone ? "npm run -s tributary --" : PROGRAM, stack, ...(aws && { aws }) };
}
