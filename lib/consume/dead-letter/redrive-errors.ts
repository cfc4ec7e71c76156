import { remedyText } from "#remedy";
import type { PositionText } from "../../change/position.ts";
import { defineError } from "../../change/tributary-error.ts";
import { nameOf, type PartitionName } from "../consume-errors.ts";

/** A message in the redrive queue is not a dead letter of a change. `where` names its consumer, topic, partition and sequence number, as far as it has them. */
export class DeadLetterFormatError extends defineError("DEAD_LETTER_FORMAT", "stop").from(
  (message: string, where: string, problem: string) => ({
    message: `the message ${message} cannot be redriven: ${problem}${where ? ` (${where})` : ""}`,
    remedy: remedyText(
      "Read the record's rows again: tributary backfill start --table <table>. A message that is none of ours belongs elsewhere.",
    ),
  }),
) {}

/** The function that was to redrive failed, or is none of ours. */
export class RedriveFailedError extends defineError("REDRIVE_FAILED", "retry").from(
  (
    functionName: string,
    what: string,
    facts: { readonly remedy?: string; readonly cause?: unknown } = {},
  ) => ({
    message: `the redrive by the function ${functionName} failed: ${what}`,
    remedy:
      facts.remedy ?? "Look at the function's log, and repeat the redrive: what took effect is on record.",
    cause: facts.cause,
  }),
) {}

/** A parked change is of an operation or table that no handler is registered for any more. */
export class HandlerMissingError extends defineError("HANDLER_MISSING", "stop").from(
  (where: PartitionName, position: PositionText) => ({
    message: `${nameOf(where)}: no handler is registered for the parked change at ${position}`,
    remedy: remedyText(
      "Redrive by the function whose code has its handler, or give the change up with --discard.",
    ),
  }),
) {}
