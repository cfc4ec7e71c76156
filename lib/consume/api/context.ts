import { PROGRAM, STACK_VARIABLE, withCommands } from "../../change/printed-command.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import { codeOf, factsOf, isA, nameOf, propertyOf } from "../run/thrown.ts";

/**
 * Writes log lines: JSON on standard output, each with the consumer, topic, partition and position. What you give
 * is written as it is: leave row values out.
 *
 * @example
 * ctx.logger.info("index created", { index });
 */
export interface Logger {
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/**
 * The second argument of a handler, beside the event.
 *
 * @example
 * async (event, ctx) => {
 *   await fetch(url, { method: "POST", headers: { "idempotency-key": event.id }, signal: ctx.signal });
 * }
 */
export interface HandlerContext {
  /** Aborts a while before the function's timeout, so that what took effect can still be recorded. */
  readonly signal: AbortSignal;
  /** Milliseconds until `signal` aborts. */
  remainingMs(): number;
  readonly logger: Logger;
  /** Number of this call for this change, from 1; calls of earlier invocations count where they were recorded. */
  readonly attempt: number;
  readonly consumer: string;
}

/** Writes one log line; the local host and tests look at it, Lambda stores it. */
export type WriteLine = (line: string) => void;

/** A logger whose lines all have some fields. Never throws: a line that cannot be written whole is written without what it cannot hold. */
export function jsonLogger(write: WriteLine, always: Readonly<Record<string, unknown>>): Logger {
  const log =
    (level: string) =>
    (message: string, fields: Readonly<Record<string, unknown>> = {}): void => {
      try {
        write(lineOf({ level, message, ...always }, fields));
      } catch {
        // Nothing to log it with; what the line tells of must not fail for it.
      }
    };
  return { info: log("info"), warn: log("warn"), error: log("error") };
}

/** Prints facts field by field where they hold themselves, or throw when they are read. */
function lineOf(
  always: Readonly<Record<string, unknown>>,
  fields: Readonly<Record<string, unknown>>,
): string {
  try {
    return JSON.stringify({ ...always, ...fields }, bigintAsText);
  } catch {
    const readable: Record<string, unknown> = { ...always };
    for (const name of namesOf(fields)) {
      try {
        const text = JSON.stringify(fields[name], bigintAsText);
        if (text !== undefined) readable[name] = JSON.parse(text);
      } catch {
        readable[name] = "(unreadable)";
      }
    }
    return JSON.stringify(readable, bigintAsText);
  }
}

function namesOf(fields: object): string[] {
  try {
    return Object.keys(fields);
  } catch {
    return [];
  }
}

function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

/**
 * Class and code of whatever was thrown: what a log may hold of it (rule 30). Of an error of ours also what to do, and the command that
 * says more, as they are typed for the stack that this function is of; `place` has what a remedy leaves open: `<consumer>`.
 */
export function errorFacts(
  error: unknown,
  place: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, string>> {
  const code = codeOf(error);
  const facts = { error: nameOf(error), ...(code && { code }) };
  const remedy = isA(error, TributaryError) && propertyOf(error, "remedy");
  if (!code || typeof remedy !== "string") return facts;
  const typed = (text: string) =>
    withCommands(text, { program: PROGRAM, stack: process.env[STACK_VARIABLE] });
  const filled = remedy.replace(/<(\w+)>/g, (open, name) => String(place[name] ?? open));
  return { ...facts, remedy: typed(filled), more: typed(`tributary explain ${code}`) };
}

/** The parts of a consumer that a line about an error is written by. */
interface ErrorLog {
  readonly consumer: string;
  readonly write: WriteLine;
  readonly configuration: { readonly logErrors: boolean };
}

/**
 * Warns of an error: its class and code; under `logErrors` its message and stack too, bounded. The consumer's definition asks for
 * them, since they may hold values.
 */
export function warnOf(
  { consumer, write, configuration }: ErrorLog,
  message: string,
  error: unknown,
  facts: Readonly<Record<string, unknown>>,
): void {
  const place = { consumer, ...facts };
  const logger = jsonLogger(write, { ...place, ...errorFacts(error, place) });
  if (configuration.logErrors) {
    const { message: errorMessage, stack } = factsOf(error);
    logger.warn(message, { errorMessage, stack });
  } else logger.warn(message);
}
