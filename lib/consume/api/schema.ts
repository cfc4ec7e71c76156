import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ChangeEventJson } from "../../change/event.ts";
import { isWholeBefore, type Rows } from "../run/event.ts";
import { RowSchemaError } from "./handler-errors.ts";

/** Any library's schema of a row: https://standardschema.dev */
export type RowSchema<R> = StandardSchemaV1<unknown, R>;

/**
 * Options that give rows their type without looking at them; a schema of zod or valibot as `row` looks at each row.
 *
 * @example
 * consumer("orders").on("public.orders", Operation.Create, rowsOf<OrdersRow>(), async (event) => { … event.after.status … })
 */
export function rowsOf<R>(): { readonly row: RowSchema<R> } {
  return {
    row: { "~standard": { version: 1, vendor: "tributary", validate: (row) => ({ value: row as R }) } },
  };
}

/**
 * The rows of an event through a schema: `after`, and of an update `before` where it is whole. Columns that did not
 * travel stay absent, whatever default the schema has for them: a default must never overwrite a stored value. Gives a
 * promise only where the schema does.
 * @throws RowSchemaError
 */
export function validateRows(schema: RowSchema<unknown>, wire: ChangeEventJson): Rows | Promise<Rows> {
  const { before = null, after = null, source } = wire;
  const unchanged = [...(wire.unchanged ?? []), ...(wire.omitted ?? [])];
  const table = `${source.schema}.${source.table}`;
  const accepted = (row: object, result: StandardSchemaV1.Result<unknown>): unknown => {
    if (result.issues) throw schemaError(table, result.issues, unchanged);
    const invented = unchanged.filter((column) => !Object.hasOwn(row, column));
    return omit(result.value, invented);
  };
  const validate = (row: object): unknown => {
    const result = schema["~standard"].validate(row);
    // A thenable of another kind would else count as an answer without issues, and without a value.
    return isThenable(result)
      ? Promise.resolve(result).then((ready) => accepted(row, ready))
      : accepted(row, result);
  };
  if (wire.op === "d") return { before, after: null };
  const old = wire.op === "u" && before && isWholeBefore(wire) ? validate(before) : null;
  if (old instanceof Promise)
    return old.then(async (before) => ({ before, after: after && (await validate(after)) }));
  const next = after && validate(after);
  return next instanceof Promise
    ? next.then((after) => ({ before: old, after }))
    : { before: old, after: next };
}

function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as { readonly then?: unknown } | null)?.then === "function";
}

function omit(row: unknown, columns: readonly string[]): unknown {
  if (typeof row !== "object" || row === null) return row;
  const present = columns.filter((column) => Object.hasOwn(row, column));
  if (present.length === 0) return row;
  return Object.fromEntries(Object.entries(row).filter(([column]) => !present.includes(column)));
}

/** The schema's own messages may quote values: they go into the cause, which only the dead letter shows. */
function schemaError(
  table: string,
  issues: readonly StandardSchemaV1.Issue[],
  unchanged: readonly string[],
): RowSchemaError {
  const paths = issues.map((issue) => pathOf(issue));
  const cause = new Error(issues.map((issue) => `${pathOf(issue)}: ${issue.message}`).join("; "));
  return new RowSchemaError(table, paths, unchanged, cause);
}

function pathOf(issue: StandardSchemaV1.Issue): string {
  const parts = (issue.path ?? []).map((part) => String(typeof part === "object" ? part.key : part));
  return parts.join(".") || "(row)";
}
