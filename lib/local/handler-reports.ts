import * as z from "zod";
import { HandlerTimeoutError } from "../consume/api/handler-errors.ts";
import { parsedLine } from "./parsed-line.ts";
import { errorLines, headline, originOf, type ToldError } from "./shown-error.ts";

/** Settings of `HandlerReports`. */
export interface HandlerReportsOptions {
  readonly consumer: string;
  /** True where dead letters outlive the run, and the verbs of the command find it: then a redrive mends them. */
  readonly canRedrive: boolean;
  /** The time that the consumer has for an invocation, where it is known: told to whoever exceeds it. */
  readonly timeoutSeconds?: number;
  /** Gets a text of one line or several. */
  readonly print: (text: string) => void;
  /** Milliseconds, for tests. */
  readonly now?: () => number;
}

const changeLine = z.object({
  message: z.string(),
  topic: z.string(),
  partition: z.number(),
  position: z.string(),
  /** Not of a change that cannot be read, and of earlier versions. */
  table: z.string().optional(),
  attempt: z.number(),
  attempts: z.number().optional(),
  error: z.string(),
  errorMessage: z.string(),
  stack: z.string().default(""),
});
type ChangeLine = z.infer<typeof changeLine>;

const stopLine = z.object({
  message: z.string(),
  topic: z.string(),
  partition: z.number(),
  error: z.string(),
});

/** As AWS's runtime prints what a function threw. */
const INVOKE_ERROR = /\tERROR\tInvoke Error \t(\{.*)$/s;
const invokeError = z.object({
  errorType: z.string(),
  errorMessage: z.string(),
  stack: z.array(z.string()).default([]),
});

const DEAD_LETTER = /went to the dead letters$/;
/** Changes, errors and partitions that are remembered. */
const REMEMBERED = 1_000;
/** A partition that stops at the same error comes again every second or so. */
const STOP_MS = 30_000;
const SUMMARY_MS = 5_000;

/**
 * Tells in the terminal what a consumer's handler threw: once when a change fails for the first time, with the stack, and once
 * when it becomes a dead letter. An error that was shown is told in one line when it comes again, and a storm of them is counted.
 */
export class HandlerReports {
  readonly #options: HandlerReportsOptions;
  readonly #now: () => number;
  readonly #changes = new Remembered();
  readonly #errors = new Remembered();
  readonly #stops = new Map<string, number>();
  readonly #failures: Budget;
  readonly #deadLetters: Budget;
  #summary: NodeJS.Timeout | undefined;

  constructor(options: HandlerReportsOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#failures = new Budget(10, 2_000, this.#now);
    this.#deadLetters = new Budget(20, 1_000, this.#now);
  }

  /** Tells what a line of the consumer's log says of an error; returns false where it is no such line. */
  take(line: string): boolean {
    const thrown = INVOKE_ERROR.exec(line)?.[1];
    if (thrown !== undefined) return this.#functionFailed(thrown);
    if (!line.startsWith('{"level":"warn"')) return false;
    const parsed = parsedLine(line);
    const change = changeLine.safeParse(parsed);
    if (change.success) {
      if (DEAD_LETTER.test(change.data.message)) this.#deadLetter(change.data);
      else this.#failed(change.data);
      return true;
    }
    const stop = stopLine.safeParse(parsed);
    return stop.success && this.#isRepeated(stop.data);
  }

  /** Tells what was left out, if anything was. */
  close(): void {
    clearTimeout(this.#summary);
    this.#summary = undefined;
    const failures = this.#failures.takeMissed();
    const deadLetters = this.#deadLetters.takeMissed();
    const parts = [
      failures > 0 ? `${failures} more failed ${failures === 1 ? "change" : "changes"}` : "",
      deadLetters > 0 ? `${deadLetters} more dead ${deadLetters === 1 ? "letter" : "letters"}` : "",
    ].filter((part) => part !== "");
    if (parts.length > 0) this.#print(`${parts.join(" and ")} not shown`);
  }

  #failed(change: ChangeLine): void {
    const redriven = change.message.startsWith("a redriven change");
    if (!this.#changes.isNew(placeOf(change)) && !redriven) return;
    if (!this.#failures.take()) {
      this.#missed();
      return;
    }
    const halves = change.message.endsWith("tried in halves") ? ", tried again in halves" : "";
    const of = change.attempts === undefined ? "" : ` of ${change.attempts}`;
    const schema = change.message.startsWith("a row's schema") ? "a row's schema failed" : "a handler failed";
    const what = redriven ? "a redrive failed" : schema;
    this.#tell(
      `${what} on ${tableOf(change)}, attempt ${change.attempt}${of}${halves}`,
      this.#toldBy(change),
      ` at ${change.position}`,
    );
  }

  #deadLetter(change: ChangeLine): void {
    const isShown = !this.#changes.isNew(placeOf(change));
    if (!this.#deadLetters.take()) {
      this.#missed();
      return;
    }
    const error = this.#toldBy(change);
    const calls = `${change.attempt} ${change.attempt === 1 ? "attempt" : "attempts"}`;
    const isKnown = !this.#errors.isNew(nameOf(error)) || isShown;
    const [, ...stack] = isKnown ? [] : errorLines(error);
    this.#print(
      [
        `dead letter: ${tableOf(change)} after ${calls}: ${headline(error)}`,
        ...stack.map((line) => `  ${line}`),
        `  ${this.#wayOut(change)}`,
      ].join("\n"),
    );
  }

  #toldBy({ error, errorMessage, stack }: ChangeLine): ToldError {
    const { timeoutSeconds } = this.#options;
    if (error !== HandlerTimeoutError.name || timeoutSeconds === undefined)
      return { name: error, message: errorMessage, stack };
    // Where the clock ran out is a place in the library: it says nothing.
    const remedy =
      "resolve every promise that it awaits, hand ctx.signal to its calls, or raise timeoutSeconds";
    return {
      name: error,
      message: `${errorMessage} (timeoutSeconds is ${timeoutSeconds}): ${remedy}`,
      stack: "",
    };
  }

  #wayOut({ position }: ChangeLine): string {
    const { consumer, canRedrive } = this.#options;
    return canRedrive
      ? `save the mended handler, and it is tried again; or: npx tributary-cdc redrive --consumer ${consumer} --position ${position}`
      : `it is gone with this run, at ${position}; tributary dev keeps such changes, and tries them again once the handler is mended`;
  }

  #functionFailed(text: string): boolean {
    const parsed = invokeError.safeParse(parsedLine(text));
    if (!parsed.success) return false;
    const { errorType: name, errorMessage: message, stack } = parsed.data;
    if (this.#failures.take()) this.#tell("the function failed", { name, message, stack: stack.join("\n") });
    else this.#missed();
    return true;
  }

  /** Whole the first time, then in a line. */
  #tell(what: string, error: ToldError, where = ""): void {
    if (this.#errors.isNew(nameOf(error))) {
      this.#print([`${what}${where}:`, ...errorLines(error).map((line) => `  ${line}`)].join("\n"));
    } else this.#print(`${what}: ${headline(error)}${where}`);
  }

  #isRepeated({ message, topic, partition, error }: z.infer<typeof stopLine>): boolean {
    const key = [message, topic, partition, error].join("\0");
    const last = this.#stops.get(key);
    const now = this.#now();
    if (last !== undefined && now - last < STOP_MS) return true;
    this.#stops.delete(key);
    this.#stops.set(key, now);
    dropOldest(this.#stops);
    return false;
  }

  #missed(): void {
    this.#summary ??= setTimeout(() => this.close(), SUMMARY_MS).unref();
  }

  #print(text: string): void {
    this.#options.print(`${this.#options.consumer}: ${text}`);
  }
}

/** So many at once, and one more each while. */
class Budget {
  readonly #most: number;
  readonly #eachMs: number;
  readonly #now: () => number;
  #left: number;
  #since: number;
  #missedCount = 0;

  constructor(most: number, eachMs: number, now: () => number) {
    this.#most = most;
    this.#eachMs = eachMs;
    this.#now = now;
    this.#left = most;
    this.#since = now();
  }

  take(): boolean {
    const earned = Math.floor((this.#now() - this.#since) / this.#eachMs);
    this.#left = Math.min(this.#most, this.#left + earned);
    this.#since += earned * this.#eachMs;
    if (this.#left > 0) {
      this.#left--;
      return true;
    }
    this.#missedCount++;
    return false;
  }

  takeMissed(): number {
    const missed = this.#missedCount;
    this.#missedCount = 0;
    return missed;
  }
}

/** The latest of many names. */
class Remembered {
  readonly #names = new Set<string>();

  isNew(name: string): boolean {
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    dropOldest(this.#names);
    return true;
  }
}

function dropOldest(of: Set<string> | Map<string, unknown>): void {
  if (of.size <= REMEMBERED) return;
  const [oldest = ""] = of.keys();
  of.delete(oldest);
}

/** Returns a text that is the same for errors of one kind. A message often quotes the row's key, so the place counts. */
function nameOf(error: ToldError): string {
  return [error.name, originOf(error) || error.message].join("\0");
}

function placeOf({ topic, partition, position }: ChangeLine): string {
  return `${topic}/${partition}/${position}`;
}

function tableOf({ table, topic }: ChangeLine): string {
  return table ?? topic;
}
