import type { ChangeEventJson } from "../../change/event.ts";
import type { Deadline } from "../run/deadline.ts";
import type { Rows } from "../run/event.ts";
import { causeOf, isA } from "../run/thrown.ts";
import { HandlerTimeoutError, RowSchemaError, SinkUnavailableError } from "./handler-errors.ts";
import { type RowSchema, validateRows } from "./schema.ts";

/** The outcome of an event's way through a schema. */
export type SchemaResult =
  | { readonly kind: "done"; readonly rows: Rows }
  /** The row is none of the schema's: it will not be one the next time either. */
  | { readonly kind: "refused"; readonly error: RowSchemaError }
  /** It threw: a look-up that failed, say. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** The invocation's time was over; `fair` says whether it had its share of it. */
  | { readonly kind: "cut-short"; readonly fair: boolean; readonly error: unknown }
  /** Not the change's fault: no attempt. */
  | { readonly kind: "unavailable"; readonly error: unknown };

/**
 * Brings an event through a user's schema, which is bound by the deadline as a handler is. Never throws. Gives a promise
 * only where the schema does. One that still runs when time is over has no say any more: what it finds is dropped.
 */
export function callSchema(
  schema: RowSchema<unknown>,
  wire: ChangeEventJson,
  deadline: Deadline,
): SchemaResult | Promise<SchemaResult> {
  const share = deadline.share();
  if (share === "none") return { kind: "cut-short", fair: false, error: new HandlerTimeoutError() };
  const fair = share === "fair";
  try {
    const rows = validateRows(schema, wire);
    if (!(rows instanceof Promise)) return { kind: "done", rows };
    return deadline.bound(rows).then(
      (ready) => ({ kind: "done", rows: ready }),
      (error) => endOf(error, fair, deadline),
    );
  } catch (error) {
    return endOf(error, fair, deadline);
  }
}

function endOf(error: unknown, fair: boolean, deadline: Deadline): SchemaResult {
  if (isA(error, RowSchemaError)) return { kind: "refused", error };
  const unavailable = causeOf(error, SinkUnavailableError);
  if (unavailable) return { kind: "unavailable", error: unavailable };
  return deadline.work.aborted ? { kind: "cut-short", fair, error } : { kind: "failed", error };
}
