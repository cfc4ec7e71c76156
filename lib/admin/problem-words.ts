import type { StatusProblem } from "./pipeline-status.ts";
import type { ProblemWords } from "./status-pauses.ts";

/** Returns a number with its noun. */
export function counted(n: number, one: string, several: string): string {
  return `${n} ${n === 1 ? one : several}`;
}

/** Returns a problem of a part; `unhealthy` unless the words say otherwise. */
export function problem(part: string, { severity = "unhealthy", ...words }: ProblemWords): StatusProblem {
  return { code: undefined, command: undefined, ...words, severity, part };
}
