import type { ConfigurationProblem } from "../change/tributary-error.ts";

/** Checks `--confirm`, which must be the pipeline's name where it is given. */
export function confirmProblems(given: string | undefined, name: string): ConfigurationProblem[] {
  if (given === undefined || given === name) return [];
  return [{ path: "--confirm", value: given, remedy: `write the pipeline's name, "${name}"` }];
}
