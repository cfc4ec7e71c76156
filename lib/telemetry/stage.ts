/**
 * Returns the stage, a dimension of every metric that keeps two deployments of one pipeline apart. The stack sets it, by default to its
 * own name.
 */
export const STAGE_VARIABLE = "TRIBUTARY_STAGE";

/** Returns the stage; `local` where nobody set one. */
export function stageFromEnvironment(environment: Readonly<Record<string, string | undefined>>): string {
  return environment[STAGE_VARIABLE] || "local";
}
