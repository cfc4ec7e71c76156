import type { StatePlace } from "./persistent-table.ts";
import { StateTableNewerError } from "./state-errors.ts";
import { stateFormatKey } from "./state-key.ts";
import { StateTable } from "./state-table.ts";
import { isTransient } from "./table-error.ts";

/**
 * Version of a pipeline's stored items, which this version reads and writes. A version that stores what older commands must not touch counts it
 * up, and has its capture task write it into the pipeline's item of `stateFormatKey`, attribute `format`. Without the item it is 1.
 */
export const STATE_FORMAT = 1;

/** The check is only a help: it does not wait long. */
const DEADLINE_MS = 5_000;
const LONGEST_WAIT_MS = 500;

/**
 * Checks that a pipeline's items are of a version that this one knows. A table that cannot be read passes: whoever needs it is told then.
 * `onUnanswered` gets the error where that took a while, and may pass.
 * @throws StateTableNewerError
 */
export async function checkStateFormat(
  { dynamodb, table, pipeline, signal }: StatePlace,
  onUnanswered: (error: unknown) => void = () => {},
): Promise<void> {
  const same = (error: unknown) => (error instanceof Error ? error : new Error(String(error)));
  const limits = {
    signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
    cut: true,
    forMs: DEADLINE_MS,
    longestWaitMs: LONGEST_WAIT_MS,
    refused: same,
    givenUp: same,
  };
  const item = await new StateTable(dynamodb, table, limits)
    .get(stateFormatKey(pipeline))
    .catch((error: unknown) => {
      if (isTransient(error)) onUnanswered(error);
      return undefined;
    });
  const format = Number(item?.format?.N ?? STATE_FORMAT);
  if (format > STATE_FORMAT) throw new StateTableNewerError(table, pipeline, format, STATE_FORMAT);
}
