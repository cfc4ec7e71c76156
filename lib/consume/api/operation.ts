import type { OperationCode } from "../../change/event.ts";

/**
 * The kinds of change, and of events that are no row's.
 *
 * @example
 * consumer("orders").on("public.orders", [Operation.Create, Operation.Update], async (event) => { … })
 */
export const Operation = {
  /** A row was inserted (or got this key: see `event.keyChange`). */
  Create: "create",
  Update: "update",
  /** A row was deleted (or lost this key: see `event.keyChange`). */
  Delete: "delete",
  /** An existing row, read by a backfill. */
  Read: "read",
  /** The table was emptied: remove its rows *in this partition* that have a smaller position. */
  Truncate: "truncate",
  /** A logical message of the application (`pg_logical_emit_message`). */
  Message: "message",
} as const;

/**
 * One of the values of `Operation`.
 *
 * @example
 * const writes: Operation[] = [Operation.Create, Operation.Update, Operation.Delete];
 */
export type Operation = (typeof Operation)[keyof typeof Operation];

/** All operations. */
export const ALL_OPERATIONS: readonly Operation[] = Object.values(Operation);

const BY_CODE: Readonly<Record<OperationCode, Operation>> = {
  c: Operation.Create,
  u: Operation.Update,
  d: Operation.Delete,
  r: Operation.Read,
  t: Operation.Truncate,
  m: Operation.Message,
};

/** The operation of a letter on the wire. */
export function operationOf(code: OperationCode): Operation {
  return BY_CODE[code];
}
