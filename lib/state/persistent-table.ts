import { type DynamoDBClient, ResourceNotFoundException } from "@aws-sdk/client-dynamodb";
import { awsFailure } from "../aws/failure.ts";
import type { CallLimits } from "./call-retry.ts";
import { StateTableError, StateTableUnavailableError } from "./state-errors.ts";
import { StateTable } from "./state-table.ts";

/** A call to DynamoDB is tried again for this long before it is given up. */
const CALL_DEADLINE_MS = 60_000;
const LONGEST_WAIT_MS = 5_000;

/** The state of a pipeline: where it stands, and until when it is asked for. */
export interface StatePlace {
  readonly dynamodb: DynamoDBClient;
  /** The state table's name. */
  readonly table: string;
  readonly pipeline: string;
  readonly signal: AbortSignal;
}

/**
 * Returns the state table for capture tasks and commands, whose calls are tried for a minute. `cut`: the signal cuts what is
 * under way too. By default it does not, since what a task writes at its end must get through.
 * Its calls throw StateTableError, StateTableUnavailableError; with `cut`, the signal's reason.
 */
export function persistentTable(
  { dynamodb, table, signal }: Omit<StatePlace, "pipeline">,
  cut = false,
): StateTable {
  return new StateTable(dynamodb, table, persistentLimits(table, signal, cut));
}

/** Returns the limits of such calls. */
export function persistentLimits(table: string, signal: AbortSignal, cut: boolean): CallLimits {
  const reasonOr = (error: Error) => (cut && signal.aborted ? signal.reason : error);
  return {
    ...{ signal, cut, forMs: CALL_DEADLINE_MS, longestWaitMs: LONGEST_WAIT_MS },
    refused: (error) => reasonOr(refused(table, error)),
    givenUp: (error) => reasonOr(new StateTableUnavailableError(table, error)),
  };
}

function refused(table: string, error: unknown): StateTableError {
  const { name, message } = error as Error;
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
      message === "Region is missing"
        ? "Set AWS_REGION, or give a command --region."
        : name === "ValidationException"
          ? 'The table must have the partition key "pk" and the sort key "sk", both strings: let the stack make it.'
          : "Give the task's role dynamodb:GetItem, UpdateItem and Query on the table (and its KMS key), with credentials of its account.",
    cause: error,
  });
}
