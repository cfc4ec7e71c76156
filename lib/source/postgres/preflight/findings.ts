import type { PreflightProblem } from "../postgres-errors.ts";

/** What a check found: problems stop the start, warnings are told. */
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
