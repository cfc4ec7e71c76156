import { setTimeout as sleep } from "node:timers/promises";
import { awsFailure } from "../aws/failure.ts";
import { once } from "./call-retry.ts";
import type { StatePlace } from "./persistent-table.ts";
import { StateTableError, StateTableUnavailableError } from "./state-errors.ts";
import { deployedKey } from "./state-key.ts";
import { StateTable } from "./state-table.ts";
import { isTransient } from "./table-error.ts";

/** Set by the CDK stack: the capture task makes no slot before the stack's first deploy has come to its end. */
export const AWAIT_DEPLOYMENT_VARIABLE = "TRIBUTARY_AWAIT_DEPLOYMENT";

/** The deployment to wait for, and for how long. */
export interface DeploymentWait extends StatePlace {
  readonly log: (line: string) => void;
  /** Default 3 s. */
  readonly pollMs?: number;
  /** Longer than a deploy takes; then the task starts anew. Default 3 h, as long as CloudFormation waits. */
  readonly deadlineMs?: number;
}

/**
 * Waits until the deployment that made this pipeline is complete. A slot that a failed first deploy leaves behind would
 * have no reader, and hold WAL until the disk is full: so there is none before everything else stands.
 * @throws StateTableError, StateTableUnavailableError; the signal's reason.
 */
export async function awaitDeployment(wait: DeploymentWait): Promise<void> {
  const { dynamodb, table, pipeline, signal, log, pollMs = 3_000, deadlineMs = 3 * 3600_000 } = wait;
  const state = new StateTable(dynamodb, table, once(signal));
  const deadline = performance.now() + deadlineMs;
  for (let told = false; ; ) {
    const late = performance.now() >= deadline;
    try {
      if (await state.get(deployedKey(pipeline))) return;
      if (late) throw unfinished(table, pipeline);
      if (!told) log("ready; the slot is made when the deployment is complete");
      told = true;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof StateTableError) throw error;
      if (!isTransient(error)) throw refused(table, error);
      if (late) throw new StateTableUnavailableError(table, error);
    }
    await sleep(pollMs, undefined, { signal });
  }
}

function unfinished(table: string, pipeline: string): StateTableError {
  return new StateTableError({
    message: `the state table "${table}" does not say that the deployment of "${pipeline}" is complete`,
    remedy: `See what CloudFormation says of the stack. A task that is run without the stack goes without ${AWAIT_DEPLOYMENT_VARIABLE}.`,
  });
}

function refused(table: string, error: unknown): StateTableError {
  return new StateTableError({
    message: `the state table "${table}" cannot be read: DynamoDB: ${awsFailure(error)}`,
    remedy: "Name the stack's own table, and permit dynamodb:GetItem on it.",
    cause: error,
  });
}
