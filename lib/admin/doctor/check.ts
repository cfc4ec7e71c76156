import { ConfigurationError, TributaryError } from "../../change/tributary-error.ts";
import { PreflightError } from "../../source/postgres/postgres-errors.ts";

/** One thing that is wrong: the code of docs/08 (or of a preflight's problem), what it is, and what to do. */
export interface Finding {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** The end of a check. What could not be looked at is `unchecked`, never `ok`. */
export type Outcome =
  | { readonly status: "ok"; readonly detail: string; readonly notes?: readonly string[] }
  | { readonly status: "problem"; readonly problems: readonly Finding[]; readonly notes?: readonly string[] }
  | { readonly status: "unchecked"; readonly why: string };

/** One thing that doctor looks at. */
export interface Check {
  /** For people and programs: `handler orders`. Each stands once in a diagnosis. */
  readonly name: string;
  /** Time that it has, in milliseconds; default `CHECK_MS`. */
  readonly deadlineMs?: number;
  /**
   * Looks, and touches nothing. What it throws is the outcome too: a TributaryError is a problem, `NotChecked` and everything else mean that it
   * could not look.
   */
  look(signal: AbortSignal): Promise<Outcome>;
}

/** Time of a check, in milliseconds. */
export const CHECK_MS = 15_000;

/** Ends a check that cannot look. */
export class NotChecked extends Error {
  override readonly name = "NotChecked";
}

/** Everything is as it should be. */
export function ok(detail: string, notes: readonly string[] = []): Outcome {
  return { status: "ok", detail, ...(notes.length > 0 && { notes }) };
}

/** Ends as `ok` with this detail, or as a problem where there are errors. */
export function outcomeOf(
  errors: readonly TributaryError[],
  detail: string,
  notes: readonly string[] = [],
): Outcome {
  if (errors.length === 0) return ok(detail, notes);
  return {
    status: "problem",
    problems: errors.flatMap(findingsOf),
    ...(notes.length > 0 && { notes }),
  };
}

/** The findings of an error: each of several problems with its own remedy. */
export function findingsOf(error: TributaryError): readonly Finding[] {
  if (error instanceof PreflightError)
    return error.problems.map(({ code, message, remedy }) => ({ code, message, remedy }));
  if (error instanceof ConfigurationError) {
    const [what = ""] = error.message.split(" is not valid:");
    return error.problems.map(({ path, value, remedy }) => ({
      code: error.code,
      message: `${what}: ${path} is ${written(value)}`,
      remedy: sentence(remedy),
    }));
  }
  return [{ code: error.code, message: error.message, remedy: error.remedy }];
}

/** The outcome of a check that threw. */
export function outcomeOfThrown(error: unknown): Outcome {
  if (error instanceof TributaryError) return outcomeOf([error], "");
  if (error instanceof NotChecked) return { status: "unchecked", why: error.message };
  // Of an error that is none of ours nobody knows what its message quotes.
  return { status: "unchecked", why: `the check failed: ${error instanceof Error ? error.name : "unknown"}` };
}

function written(value: unknown): string {
  if (value === undefined) return "not set";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}
