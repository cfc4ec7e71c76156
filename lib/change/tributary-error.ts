/**
 * The way on after an error: `retry` (passes by itself: again with backoff), `restart` (the process ends and
 * its host starts it anew), `stop` (an operator must act first: starting again would fail the same way).
 */
export type RetryDirective = "retry" | "restart" | "stop";

/** Members of every error of ours. */
export interface ErrorFacts {
  /** One sentence: what happened, with the names and values concerned (never row values). */
  readonly message: string;
  /** The operator's next step, as a sentence or as SQL to run. */
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

/** Errors of one code and one directive, made by `defineError`, with the fields that `tell` returns beyond `ErrorFacts`. */
export type ErrorClass<
  Code extends string,
  Retry extends RetryDirective,
  Args extends unknown[],
  Facts,
> = new (
  ...args: Args
) => TributaryError &
  Readonly<Omit<Facts, keyof ErrorFacts>> & { readonly code: Code; readonly retry: Retry };

/** An `ErrorClass` whose constructor takes the facts, to be extended as it is or by way of `from`. */
export interface DefinedError<Code extends string, Retry extends RetryDirective>
  extends ErrorClass<Code, Retry, [facts: ErrorFacts], ErrorFacts> {
  /** The same with a constructor of its own: `tell` has its parameters, and returns what the error tells. */
  from<Args extends unknown[], Facts extends ErrorFacts>(
    tell: (...args: Args) => Facts,
  ): ErrorClass<Code, Retry, Args, Facts>;
  /** The same for an error that tells a message, and has one remedy always. */
  saying<Args extends unknown[]>(
    message: (...args: Args) => string,
    remedy: string,
  ): ErrorClass<Code, Retry, Args, ErrorFacts>;
}

/**
 * The class that an error class extends. Its constructor takes the facts, or what `from` says. Logs, dead letters and
 * holds store an error's name, which is that of the class: bundles keep it.
 *
 * @example
 * // A port that was asked for is held by another process.
 * export class PortTakenError extends defineError("PORT_TAKEN", "stop").from((port: number, cause?: unknown) => ({
 *   message: `Port ${port} is taken by another process`,
 *   remedy: `End the process that listens on ${port}, or choose another port.`,
 *   cause,
 *   port, // becomes error.port
 * })) {}
 */
export function defineError<Code extends string, Retry extends RetryDirective>(
  code: Code,
  retry: Retry,
): DefinedError<Code, Retry> {
  class Defined extends TributaryError {
    readonly code = code;
    readonly retry = retry;

    constructor(facts: ErrorFacts) {
      // The texts of `#remedy` are missing in the bundle of a deployed consumer.
      super({ ...facts, remedy: facts.remedy ?? `tributary explain ${code}` });
    }
  }
  const from = (tell: (...args: never[]) => ErrorFacts) =>
    class extends Defined {
      constructor(...args: never[]) {
        const { message, remedy, cause, ...fields } = tell(...args);
        super({ message, remedy, cause });
        Object.assign(this, fields);
      }
    };
  const saying = (message: (...args: never[]) => string, remedy: string) =>
    from((...args) => ({ message: message(...args), remedy }));
  return Object.assign(Defined, { from, saying }) as unknown as DefinedError<Code, Retry>;
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
export class ConfigurationError extends defineError("CONFIGURATION", "stop").from(
  (what: string, problems: readonly ConfigurationProblem[]) => ({
    message: `${what} is not valid:\n${problems.map((p) => `  ${p.path}: ${p.remedy} (got ${show(p.value)})`).join("\n")}`,
    remedy: "Correct the fields named above and start again.",
    problems,
  }),
) {}

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
