import { TributaryError } from "../change/tributary-error.ts";
import { PreflightError } from "./postgres/postgres-errors.ts";
import type { PlanFinding } from "./source-plan.ts";

/** Returns what an error of a start says, one finding for each of its problems. Throws on what is no refusal. */
export function refusalsOf(error: unknown): readonly PlanFinding[] {
  if (error instanceof PreflightError)
    return error.problems.map(({ code, message, remedy }) => ({ code, message, remedy }));
  if (error instanceof TributaryError && error.retry === "stop")
    return [{ code: error.code, message: error.message, remedy: error.remedy }];
  throw error;
}
