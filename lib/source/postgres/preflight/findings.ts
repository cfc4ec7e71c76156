import type { PreflightProblem } from "../postgres-errors.ts";

/** CheckResult of a check: problems stop the start, warnings are logged. */
export interface CheckResult {
  readonly problems: readonly PreflightProblem[];
  readonly warnings: readonly PreflightProblem[];
}

/** All findings together. */
export function gather(findings: readonly CheckResult[]): CheckResult {
  return {
    problems: findings.flatMap((f) => f.problems),
    warnings: findings.flatMap((f) => f.warnings),
  };
}
