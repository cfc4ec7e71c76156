import { setTimeout as sleep } from "node:timers/promises";
import { ConditionalCheckFailedException, ResourceNotFoundException } from "@aws-sdk/client-dynamodb";
import { awsFailure } from "../aws/failure.ts";
import { StateTableError, StateTableUnavailableError } from "./state-errors.ts";
import { isTransient } from "./table-error.ts";

/** A call to DynamoDB is tried again for this long before the error is given on. */
const CALL_DEADLINE_MS = 60_000;

/** Which table is called, and until when. */
export interface TableCallOptions {
  readonly table: string;
  /** A call that fails is not tried again from then on. */
  readonly signal: AbortSignal;
  /**
   * Whether the signal cuts what is under way too. Default: no, since what a task writes at its end must get through; it then
   * ends in its own error, not in the signal's reason.
   */
  readonly cut?: boolean;
}

/**
 * Tries a call again until it is answered; it must be one that may be repeated without harm, and is given what cuts it.
 * @throws StateTableError, StateTableUnavailableError, ConditionalCheckFailedException; with `cut`, the signal's reason.
 */
export async function persistently<T>(
  { table, signal, cut = false }: TableCallOptions,
  call: (until: { readonly abortSignal?: AbortSignal }) => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + CALL_DEADLINE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      return await call(cut ? { abortSignal: signal } : {});
    } catch (error) {
      if (error instanceof ConditionalCheckFailedException) throw error;
      if (cut) signal.throwIfAborted();
      if (!isTransient(error)) throw refused(table, error);
      if (performance.now() >= deadline || signal.aborted) throw new StateTableUnavailableError(table, error);
      const waitMs = Math.random() * Math.min(5000, 50 * 2 ** attempt);
      await sleep(waitMs, undefined, cut ? { signal } : {});
    }
  }
}

function refused(table: string, error: unknown): StateTableError {
  const { name } = error as Error;
  if (error instanceof ResourceNotFoundException) {
    return new StateTableError({
      message: `the state table "${table}" does not exist`,
      remedy: "Deploy the stack first, or set TRIBUTARY_STATE_TABLE to the table it made.",
      cause: error,
    });
  }
  return new StateTableError({
    message: `DynamoDB refuses a call to the state table "${table}": ${awsFailure(error)}`,
    remedy:
      name === "ValidationException"
        ? 'The table must have the partition key "pk" and the sort key "sk", both strings: let the stack make it.'
        : "Give the task's role dynamodb:GetItem, UpdateItem and Query on the table (and its KMS key), with credentials of its account.",
    cause: error,
  });
}
