import { defineError } from "../change/tributary-error.ts";

/** A reset that cannot be done: nothing was touched. */
export class ResetRefusedError extends defineError("RESET_REFUSED", "stop").from(
  (consumer: string, why: string, remedy: string) => ({
    message: `${consumer} is not reset: ${why}`,
    remedy,
  }),
) {}

/** A backfill that a reset waits for has ended without the table's rows: its partitions stay unhealed until the reset is repeated. */
export class ResetIncompleteError extends defineError("RESET_INCOMPLETE", "stop").from(
  (consumer: string, table: string, ended: string, reason: string | undefined) => ({
    message: `the reset of ${consumer} is not complete: the backfill of ${table} was ${ended}${reason === undefined ? "" : `: ${reason}`}`,
    remedy: `Mend what the reason names, if it names something; then repeat tributary consumer reset --consumer ${consumer}: it goes on with the tables that are missing.`,
  }),
) {}
