import { isPosition, type PositionText } from "../../change/position.ts";
import { objectOf, oneOf, optional, shape, textWhere, wholeFrom } from "../../change/shape.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";

/**
 * Asks a consumer's function to bring parked changes to effect. All that is given must fit; without a choice all of
 * the consumer's open dead letters are meant.
 *
 * @example
 * const { redriven, open } = await handler({ tributary: "redrive", key: "17" }, context);
 */
export interface RedriveRequest {
  readonly tributary: "redrive";
  /** Refused by the function of another consumer. */
  readonly consumer?: string;
  /** Values of the key columns, with commas between: `17`, `5,17`. */
  readonly key?: string;
  readonly topic?: string;
  readonly partition?: number;
  /** Of a change that failed, as its dead letter says: its key is meant. */
  readonly position?: PositionText;
  /** Only tells what is open. */
  readonly dryRun?: boolean;
  /** Gives the changes up that failed, without a call of the handler, and goes on with those behind them. Needs `key` or `position`. */
  readonly discard?: boolean;
  /** Ends after so many changes. */
  readonly limit?: number;
}

/**
 * The outcome of one key's dead letter: `done` with all that waited behind it; `failed` again, `open` (not tried, or not
 * to the end), `busy` (another redrive, or a later change on its way), `unhandled` (no handler is registered for a change
 * of it: it stays parked), `superseded` by a later change: refused.
 *
 * @example
 * const bad = report.letters.filter(({ outcome }) => outcome === "failed");
 */
export interface RedrivenLetter {
  readonly topic: string;
  readonly partition: number;
  readonly key: string;
  readonly table: string;
  readonly position: PositionText;
  /** The change that failed last: what `discard` gives up. Missing where none did since the last that took effect. */
  readonly failed?: PositionText;
  readonly outcome: "done" | "failed" | "open" | "busy" | "unhandled" | "superseded";
  /** Changes that took effect now. */
  readonly redriven: number;
  /** Handler calls for the change that failed, so far. */
  readonly attempts: number;
  /** Class of the last error. */
  readonly error: string;
  /** Changes parked under the key since it was, those included that took effect meanwhile. */
  readonly parked?: number;
}

/**
 * The report of a redrive.
 *
 * @example
 * if (report.more) await redriveAgain();
 */
export interface RedriveReport {
  readonly tributary: "redrive";
  readonly consumer: string;
  /** Changes that took effect. */
  readonly redriven: number;
  /** Changes that were given up. */
  readonly discarded: number;
  /** Keys by what became of them. */
  readonly done: number;
  readonly failed: number;
  readonly open: number;
  readonly busy: number;
  readonly unhandled: number;
  readonly superseded: number;
  /** Time, or the limit, ended it before every key was tried: invoke it again. */
  readonly more: boolean;
  readonly durationMs: number;
  /** Key by key, a thousand at most. */
  readonly letters: readonly RedrivenLetter[];
}

const text = (what: string) => optional(textWhere(() => true, `write ${what}`));
const flag = optional(shape<boolean>((value) => typeof value === "boolean", "write true or false"));
const number = (from: number) => optional(wholeFrom(from, `write a whole number from ${from}`));

const request = objectOf({
  tributary: oneOf(["redrive"]),
  consumer: text("the consumer's name"),
  key: text("the values of the key columns, with commas between them: 5,17"),
  topic: text("the name of a topic"),
  partition: number(0),
  position: optional(textWhere(isPosition, "write it as the dead letter has it: 34 characters")),
  dryRun: flag,
  discard: flag,
  limit: number(1),
});

/** @throws ConfigurationError naming what is wrong; also when another consumer is meant. */
export function readRedriveRequest(event: RedriveRequest, consumer: string): RedriveRequest {
  const { key, position, discard } = event;
  const problems = request(event).map(([path, remedy]) => ({
    path,
    value: event[path as keyof RedriveRequest],
    remedy,
  }));
  if (problems.length === 0 && event.consumer !== undefined && event.consumer !== consumer)
    problems.push({ path: "consumer", value: event.consumer, remedy: `this is the function of ${consumer}` });
  else if (problems.length === 0 && discard && key === undefined && position === undefined)
    problems.push({
      path: "discard",
      value: true,
      remedy: "name the key or position of what is to be given up",
    });
  if (problems.length > 0) throw new ConfigurationError("The redrive request", problems);
  return event;
}
