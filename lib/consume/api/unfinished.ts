import type { Deadline } from "../run/deadline.ts";
import { causeOf } from "../run/thrown.ts";
import { HandlerTimeoutError, SinkUnavailableError } from "./handler-errors.ts";

/** Why a call of the user's code, a handler or a schema, did not finish. */
export type Unfinished =
  /** It threw. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** The invocation's time was over; `fair` says whether it had its share of it. */
  | { readonly kind: "cut-short"; readonly fair: boolean; readonly error: unknown }
  /** Not the change's fault: no attempt. */
  | { readonly kind: "unavailable"; readonly error: unknown };

/** Returns what becomes of a call that threw, or did not come back in time. */
export function unfinished(error: unknown, fair: boolean, deadline: Deadline): Unfinished {
  const unavailable = causeOf(error, SinkUnavailableError);
  if (unavailable) return { kind: "unavailable", error: unavailable };
  return deadline.work.aborted ? { kind: "cut-short", fair, error } : { kind: "failed", error };
}

/** Returns the outcome of a call that did not begin, since the invocation's time was over. */
export function timeOver(): Unfinished {
  return { kind: "cut-short", fair: false, error: new HandlerTimeoutError() };
}
