/**
 * What to do about an error: `retry` (passes by itself: again with backoff), `restart` (the process ends and
 * its host starts it anew), `stop` (an operator must act first: starting again would fail the same way).
 */
export type RetryDirective = "retry" | "restart" | "stop";

/** What every error of ours carries. */
export interface ErrorFacts {
  /** One sentence: what happened, with the names and values concerned (never row values). */
  readonly message: string;
  /** What the operator does next, as a sentence or as SQL to run. */
  readonly remedy: string;
  readonly cause?: unknown;
}

/**
 * The base of all errors that Tributary throws. `code` is stable and listed in docs ("Errors"); log lines carry class,
 * code and position, never row values.
 *
 * @example
 * catch (error) {
 *   if (error instanceof TributaryError) console.error(error.code, error.remedy);
 * }
 */
export abstract class TributaryError extends Error {
  abstract readonly code: string;
  abstract readonly retry: RetryDirective;
  readonly remedy: string;

  constructor(facts: ErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.remedy = facts.remedy;
  }
}

/** One thing wrong with a configuration: the path of the field, what stands there, what should. */
export interface ConfigurationProblem {
  readonly path: string;
  readonly value: unknown;
  readonly remedy: string;
}

/**
 * The pipeline definition, the environment or a command line is wrong; found before anything was touched.
 *
 * @example
 * if (error instanceof ConfigurationError) for (const { path, remedy } of error.problems) console.error(path, remedy);
 */
export class ConfigurationError extends TributaryError {
  readonly code = "CONFIGURATION";
  readonly retry = "stop";
  readonly problems: readonly ConfigurationProblem[];

  constructor(what: string, problems: readonly ConfigurationProblem[]) {
    const lines = problems.map((p) => `  ${p.path}: ${p.remedy} (got ${show(p.value)})`);
    super({
      message: `${what} is not valid:\n${lines.join("\n")}`,
      remedy: "Correct the fields named above and start again.",
    });
    this.problems = problems;
  }
}

function show(value: unknown): string {
  if (value === undefined) return "nothing";
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    // A bigint, or an object that holds one or itself.
    text = typeof value === "object" ? Object.prototype.toString.call(value) : String(value);
  }
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** An error as text for a person: what happened and what to do; a stack only for what is not an error of ours. */
export function explain(error: unknown): string {
  if (error instanceof TributaryError)
    return `${error.message}\n\nWhat to do: ${error.remedy}\n(${error.code})`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
