import { codeOf, nameOf } from "../run/thrown.ts";

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
 * What a handler gets beside the event.
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
  /** Which call for this change this is, from 1; calls of earlier invocations count where they were recorded. */
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

/** What is given may hold itself, or throw when it is read: then field by field. */
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

/** Class and code of whatever was thrown: what a log may hold of it (rule 30). */
export function errorFacts(error: unknown): { error: string; code?: string } {
  const code = codeOf(error);
  return code === undefined ? { error: nameOf(error) } : { error: nameOf(error), code };
}
