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

/** A logger whose lines all have some fields. */
export function jsonLogger(write: WriteLine, always: Readonly<Record<string, unknown>>): Logger {
  const log =
    (level: string) =>
    (message: string, fields: Readonly<Record<string, unknown>> = {}): void =>
      write(JSON.stringify({ level, message, ...always, ...fields }, bigintAsText));
  return { info: log("info"), warn: log("warn"), error: log("error") };
}

function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

/** Class and code of an error: what a log may hold of it (rule 30). */
export function errorFacts(error: unknown): { error: string; code?: string } {
  if (!(error instanceof Error)) return { error: typeof error };
  const code = (error as { code?: unknown }).code;
  return typeof code === "string" && /^[\w-]{1,60}$/.test(code)
    ? { error: error.name.slice(0, 100), code }
    : { error: error.name.slice(0, 100) };
}
