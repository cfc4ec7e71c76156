import type { PreflightProblem } from "../postgres-errors.ts";

/** Findings of a check: problems stop the start, warnings are logged. */
export interface Findings {
  readonly problems: readonly PreflightProblem[];
  readonly warnings: readonly PreflightProblem[];
}

/** All findings together. */
export function gather(findings: readonly Findings[]): Findings {
  return {
    problems: findings.flatMap((f) => f.problems),
    warnings: findings.flatMap((f) => f.warnings),
  };
}
