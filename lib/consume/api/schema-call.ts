import type { ChangeEventJson } from "../../change/event.ts";
import type { Deadline } from "../run/deadline.ts";
import type { Rows } from "../run/event.ts";
import { isA } from "../run/thrown.ts";
import { RowSchemaError } from "./handler-errors.ts";
import { type RowSchema, validateRows } from "./schema.ts";
import { timeOver, type Unfinished, unfinished } from "./unfinished.ts";

/** The outcome of an event's way through a schema. */
export type SchemaResult =
  | { readonly kind: "done"; readonly rows: Rows }
  /** The row is none of the schema's: it will not be one the next time either. */
  | { readonly kind: "refused"; readonly error: RowSchemaError }
  /** It threw, in a look-up, say. */
  | Unfinished;

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
  if (share === "none") return timeOver();
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
  return isA(error, RowSchemaError) ? { kind: "refused", error } : unfinished(error, fair, deadline);
}
