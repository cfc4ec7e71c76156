import { setTimeout as sleep } from "node:timers/promises";
import { ConditionalCheckFailedException, ResourceNotFoundException } from "@aws-sdk/client-dynamodb";
import { StateTableError, StateTableUnavailableError } from "./errors.ts";
import { isTransient } from "./table-error.ts";

/** A call to DynamoDB is tried again for this long before the error is given on. */
const CALL_DEADLINE_MS = 60_000;

/**
 * Tries a call again until it is answered; it must be one that may be repeated without harm.
 * @throws StateTableError, StateTableUnavailableError, ConditionalCheckFailedException
 */
export async function persistently<T>(
  options: { readonly table: string; readonly signal: AbortSignal },
  call: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + CALL_DEADLINE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (error instanceof ConditionalCheckFailedException) throw error;
      if (!isTransient(error)) throw refused(options.table, error);
      if (performance.now() >= deadline || options.signal.aborted)
        throw new StateTableUnavailableError(options.table, error);
      await sleep(Math.random() * Math.min(5000, 50 * 2 ** attempt));
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
    message: `DynamoDB refuses a call to the state table "${table}": ${name}`,
    remedy:
      name === "ValidationException"
        ? 'The table must have the partition key "pk" and the sort key "sk", both strings: let the stack make it.'
        : "Give the task's role dynamodb:GetItem, UpdateItem and Query on the table (and its KMS key), with credentials of its account.",
    cause: error,
  });
}
